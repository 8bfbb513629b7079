//! The messages, as JSON has them.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// What a proxy or an operator asks of the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Comes back in [`Message::to`].
    pub id: u64,
    /// What is asked.
    pub ask: Ask,
}

/// What can be asked. There is no way to ask for anything but sockets of enrolled pods: enrolment
/// follows settings and manifests, which the agent reads itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Ask {
    /// First and once. Answer: [`Reply::Welcome`]; to a proxy, the pods follow.
    Hello(Hello),
    /// Fresh listeners of an enrolled pod, not yet in service. Answer: [`Reply::Listeners`].
    Listen {
        /// Which pod.
        pod: PodKey,
    },
    /// The listeners given last are being accepted from: put them in service. Answer:
    /// [`Reply::Ready`].
    Serving {
        /// Which pod.
        pod: PodKey,
    },
    /// Fresh unconnected sockets inside an enrolled pod. Answer: [`Reply::Sockets`].
    Stock {
        /// Which pod.
        pod: PodKey,
        /// Which kind.
        kind: SocketKind,
        /// How many: 1 to [`super::MAX_STOCK`].
        count: u32,
    },
    /// The agent's own account. Answer: [`Reply::Status`], in as many parts as it takes.
    Status {},
}

/// Who comes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Hello {
    /// [`super::VERSION`] of the one who asks.
    pub version: u32,
    /// What for.
    pub role: Role,
    /// When the proxy was started, milliseconds of CLOCK_BOOTTIME: of two, the later one takes over.
    #[serde(default)]
    pub started: u64,
    /// The pods whose listeners this proxy has in service already, from before the agent came.
    #[serde(default)]
    pub serving: Vec<PodKey>,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// It serves pods: it is told of them and may ask for sockets.
    Proxy,
    /// It may ask for [`Ask::Status`] only.
    Operator,
}

/// An enrolled pod. The cookie makes the key unique for the life of the kernel: slots are used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PodKey {
    /// Its slot, below `abi::MAX_PODS`.
    pub slot: u32,
    /// Cookie of its network namespace (`SO_NETNS_COOKIE`).
    pub netns: u64,
}

/// Kinds of sockets that the proxy keeps in stock. All are non-blocking and close-on-exec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SocketKind {
    /// TCP, IPv4, from the pod outwards.
    Egress4,
    /// TCP, IPv6, from the pod outwards.
    Egress6,
    /// TCP, IPv4, into the pod; may bind to the client's address where the pod is transparent.
    Ingress4,
    /// As `Ingress4`, IPv6.
    Ingress6,
    /// UDP, IPv4, from the pod to a DNS server.
    Dns4,
    /// UDP, IPv6, from the pod to a DNS server.
    Dns6,
}

impl SocketKind {
    /// Every kind.
    pub const ALL: [Self; 6] =
        [Self::Egress4, Self::Egress6, Self::Ingress4, Self::Ingress6, Self::Dns4, Self::Dns6];
}

/// What the agent says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// The [`Request::id`] it answers; absent where nothing was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
    /// What is said.
    pub say: Reply,
}

/// What the agent can say. Descriptors travel beside it, in the order given here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Reply {
    /// To [`Ask::Hello`]. Beside it, for a proxy: the maps ORIGINS, DNS_ORIGINS, COUNTERS; nothing for
    /// an operator.
    Welcome(Welcome),
    /// All enrolled pods, in parts.
    Pods {
        /// Whether another part follows.
        more: bool,
        /// The pods of this part.
        pods: Vec<PodInfo>,
    },
    /// The node's own addresses, whenever they change.
    Node {
        /// All addresses of the agent's network namespace.
        addresses: Vec<IpAddr>,
    },
    /// To [`Ask::Listen`]. Beside it, for each family that the pod has, IPv4 first: the listener for
    /// connections that arrive, the one for connections that it opens, then four DNS sockets (UDP).
    Listeners {
        /// Whose.
        pod: PodKey,
        /// Whether IPv4 ones are there.
        v4: bool,
        /// Whether IPv6 ones are there.
        v6: bool,
    },
    /// To [`Ask::Stock`]. Beside it: the sockets, perhaps fewer than were asked for, never none.
    Sockets {
        /// Whose.
        pod: PodKey,
        /// Which kind.
        kind: SocketKind,
    },
    /// To [`Ask::Serving`]: the listeners are in service.
    Ready {
        /// Whose.
        pod: PodKey,
    },
    /// Another proxy serves every pod: accept no more, drain, end.
    Superseded {},
    /// What was asked is not done.
    Refused {
        /// Why.
        reason: Refusal,
        /// In words, for a log.
        detail: String,
    },
    /// To [`Ask::Status`], in parts.
    Status(StatusPart),
}

/// Why the agent refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Refusal {
    /// The two ends speak different versions.
    Version,
    /// No such pod is enrolled (any more).
    UnknownPod,
    /// Out of its role or turn: hello twice, serving without listeners, a count out of bounds.
    NotNow,
    /// The pod has no such address family.
    Family,
    /// The kernel said no; the pod may be on its way out. Ask again later.
    Kernel,
    /// The agent is being asked too much.
    Busy,
}

/// The agent's greeting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Welcome {
    /// [`super::VERSION`] of the agent.
    pub version: u32,
    /// The node's own addresses: traffic from these is the node's (kubelet probes).
    pub node_addresses: Vec<IpAddr>,
}

/// An enrolled pod, as the proxy must know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodInfo {
    /// Its key.
    pub key: PodKey,
    /// Its workload, `namespace/name`.
    pub workload: String,
    /// The Pod object's uid, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Its addresses of global scope.
    pub addresses: Vec<IpAddr>,
    /// Whether sockets into it may bind to the client's address.
    pub transparent: bool,
    /// Whether its sockets are accelerated (sk_msg).
    pub accelerated: bool,
    /// Counts the enrolments that this agent made; 0 where an earlier one did. Another one than 0 that
    /// is not the one known for this key: listeners have to be asked for and put in service (again).
    pub enrolment: u64,
}

/// A part of the agent's account of itself. The first part says what the agent is; pods follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StatusPart {
    /// Whether another part follows.
    pub more: bool,
    /// In the first part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentStatus>,
    /// Some of the pods.
    pub pods: Vec<PodStatus>,
}

/// How the agent stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AgentStatus {
    /// Package version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// Where maps and links are pinned.
    pub pins: String,
    /// Version of the manifests in force; 0: none yet, nothing new is enrolled.
    pub snapshot: u64,
    /// What is wrong with the manifests as they stand; the last good ones hold.
    pub problems: Vec<String>,
    /// What is wrong with the sources of pods.
    pub sources: Vec<String>,
    /// Connected proxies.
    pub proxies: Vec<ProxyStatus>,
    /// What the BPF programs counted on this node since the maps were made.
    pub counters: Vec<(String, u64)>,
}

/// A connected proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProxyStatus {
    /// Its process, as the kernel told the agent.
    pub pid: i32,
    /// How many pods it serves.
    pub serves: usize,
    /// Whether another has taken over.
    pub superseded: bool,
}

/// How one pod stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodStatus {
    /// Its workload, `namespace/name`; what is known of it where that is not.
    pub name: String,
    /// The Pod object's uid, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Its place, while it is enrolled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PodKey>,
    /// Its cgroup's folder.
    pub cgroup: String,
    /// Its addresses, as far as they were looked at.
    pub addresses: Vec<IpAddr>,
    /// Where it stands.
    pub state: State,
    /// Why.
    pub reason: Reason,
    /// The same in words.
    pub detail: String,
}

/// Where a pod stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Its traffic goes as if we were not here.
    NotEnrolled,
    /// Its programs are in place and refuse everything: no proxy serves it yet, or any more.
    Waiting,
    /// Its programs are in place and a connected proxy serves it.
    Serving,
}

/// Why a pod stands where it stands. The names are stable: alerts and tests may rest on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Enrolled: labels or settings say so.
    OptedIn,
    /// Enrolled, kept from before: the manifests have not been good since the agent's start.
    Adopted,
    /// Not enrolled: labels or settings say so, or nothing says otherwise.
    NotOptedIn,
    /// Not enrolled: the manifests know no such workload or pod.
    UnknownWorkload,
    /// Not enrolled: the manifests have not been good since the agent's start.
    NoManifests,
    /// Never enrolled: it is on the node's network.
    HostNetwork,
    /// Not enrolled: it has no process in a network namespace (yet, or any more).
    NoNetns,
    /// Not enrolled: its cgroup is not there (yet, or any more).
    NoCgroup,
    /// Not enrolled: another pod has its network namespace or its cgroup.
    Shared,
    /// Not enrolled: the node's slots are all taken.
    NoSlot,
    /// Not enrolled: the kernel said no; it is tried again.
    Failed,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 11] = [
        Self::OptedIn,
        Self::Adopted,
        Self::NotOptedIn,
        Self::UnknownWorkload,
        Self::NoManifests,
        Self::HostNetwork,
        Self::NoNetns,
        Self::NoCgroup,
        Self::Shared,
        Self::NoSlot,
        Self::Failed,
    ];

    /// As logs, metrics and `status` have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OptedIn => "opted_in",
            Self::Adopted => "adopted",
            Self::NotOptedIn => "not_opted_in",
            Self::UnknownWorkload => "unknown_workload",
            Self::NoManifests => "no_manifests",
            Self::HostNetwork => "host_network",
            Self::NoNetns => "no_netns",
            Self::NoCgroup => "no_cgroup",
            Self::Shared => "shared",
            Self::NoSlot => "no_slot",
            Self::Failed => "failed",
        }
    }
}

impl State {
    /// As logs, metrics and `status` have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotEnrolled => "not_enrolled",
            Self::Waiting => "waiting",
            Self::Serving => "serving",
        }
    }
}
