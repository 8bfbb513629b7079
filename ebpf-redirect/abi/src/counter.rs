//! What the programs count, per CPU, in the array `COUNTERS`.

macro_rules! counters {
    ($($(#[doc = $help:literal])+ $variant:ident = $name:literal,)+) => {
        /// Index into `COUNTERS`.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Counter { $($(#[doc = $help])+ $variant,)+ }

        impl Counter {
            /// All of them, in the order of their indexes.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// In snake case, for metrics and `status`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// One sentence for `status` and the metric's help.
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => concat!($($help,)+),)+ }
            }
        }
    };
}

counters! {
    /// Connections to an IPv4 address that were redirected to the proxy.
    RedirectedV4 = "redirected_v4",
    /// Connections to an IPv6 address that were redirected to the proxy.
    RedirectedV6 = "redirected_v6",
    /// Connections and queries refused because the pod's proxy was not ready.
    RefusedNotReady = "refused_not_ready",
    /// Connections and queries refused because the socket was of another network namespace.
    RefusedForeignNetns = "refused_foreign_netns",
    /// Connections refused because their original destination could not be kept on the socket.
    RefusedNoMemory = "refused_no_memory",
    /// Connections refused because too many of the pod's had been begun and not answered.
    RefusedHalfOpen = "refused_half_open",
    /// Connections to the host itself, left alone.
    PassedLoopback = "passed_loopback",
    /// Original destinations handed to the proxy.
    OriginStored = "origin_stored",
    /// Original destinations that did not fit in the map: the proxy closes these connections.
    OriginMapFull = "origin_map_full",
    /// Original destinations removed because the connection ended before the proxy took it.
    OriginRemoved = "origin_removed",
    /// DNS queries and connections that were redirected to the proxy.
    DnsRedirected = "dns_redirected",
    /// DNS queries handed to the proxy with the server they were meant for.
    DnsStored = "dns_stored",
    /// DNS queries dropped because the server they were meant for could not be handed over.
    DnsNotStored = "dns_not_stored",
    /// DNS queries refused because their socket had asked too many servers.
    DnsTooManyServers = "dns_too_many_servers",
    /// DNS queries refused because the proxy has no DNS socket in the pod.
    DnsNoPort = "dns_no_port",
    /// Addresses given back to the application as it knows them.
    NameRestored = "name_restored",
    /// Arriving connections given to the proxy.
    InboundSteered = "inbound_steered",
    /// Arriving connections refused for want of a listener of the proxy.
    InboundRefused = "inbound_refused",
    /// Redirected connections given to the proxy.
    OutboundSteered = "outbound_steered",
    /// Redirected connections refused for want of a listener of the proxy.
    OutboundRefused = "outbound_refused",
    /// Frames stopped at the pod's interface: they would have opened a connection past the proxy.
    GuardSyn = "guard_syn",
    /// Frames stopped at the pod's interface: a DNS query past the proxy.
    GuardDns = "guard_dns",
    /// Frames stopped at the pod's interface: a fragment that hides what it opens.
    GuardFragment = "guard_fragment",
    /// Frames stopped at the pod's interface: an IP protocol or extension header that is not let out.
    GuardProtocol = "guard_protocol",
    /// Frames stopped at the pod's interface: neither IP nor ARP, or with a VLAN tag.
    GuardEthertype = "guard_ethertype",
    /// Frames stopped at the pod's interface: shorter or otherwise than their headers say.
    GuardMalformed = "guard_malformed",
    /// Frames stopped at the pod's interface: TCP from a packet socket.
    GuardInjected = "guard_injected",
    /// Packets stopped at the pod's cgroup: they would have opened a connection past the proxy.
    CgroupGuardSyn = "cgroup_guard_syn",
    /// Packets stopped at the pod's cgroup: a DNS query past the proxy.
    CgroupGuardDns = "cgroup_guard_dns",
    /// Packets stopped at the pod's cgroup: a fragment that hides what it opens.
    CgroupGuardFragment = "cgroup_guard_fragment",
    /// Packets stopped at the pod's cgroup: an IP protocol or extension header that is not let out.
    CgroupGuardProtocol = "cgroup_guard_protocol",
    /// Packets stopped at the pod's cgroup: not IP.
    CgroupGuardEthertype = "cgroup_guard_ethertype",
    /// Packets stopped at the pod's cgroup: shorter or otherwise than their headers say.
    CgroupGuardMalformed = "cgroup_guard_malformed",
    /// Packets stopped at the pod's cgroup: TCP from a raw socket.
    CgroupGuardInjected = "cgroup_guard_injected",
    /// Frames stopped on the node's side of the pod's interface, which had got past the pod's side.
    HostGuard = "host_guard",
    /// Sockets taken into the acceleration.
    FastAdded = "fast_added",
    /// Sockets that the acceleration did not take; they go by TCP.
    FastRefused = "fast_refused",
    /// Messages handed from socket to socket.
    FastRedirected = "fast_redirected",
    /// Messages of accelerated sockets that went by TCP.
    FastFallback = "fast_fallback",
}

/// Capacity of `COUNTERS`, with room for later ones.
pub const MAX_COUNTERS: u32 = 64;

const _: () = assert!(Counter::ALL.len() <= MAX_COUNTERS as usize);
