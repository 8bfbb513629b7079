//! Hands the original destination to the proxy: when the application's SYN is about to leave, its source
//! port is known, and by source the proxy asks for it after `accept`.

use core::ptr::read_volatile;

use abi::{Address, Counter, FastKey, OUTBOUND_PORT, OriginKey, is_loopback_v4, is_loopback_v6, is_mapped};
use aya_ebpf::bindings::{
    BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB,
    BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_TCP_CLOSE, BPF_TCP_SYN_SENT, bpf_sock_ops,
};
use aya_ebpf::helpers::bpf_sock_ops_cb_flags_set;
use aya_ebpf::macros::sock_ops as program;
use aya_ebpf::programs::SockOpsContext;

use crate::context::AF_INET6;
use crate::maps::{ORIGIN_STORE, ORIGINS, count, count_half_open, stored};
use crate::{accelerate, pod};

#[program]
pub fn sock_ops(context: SockOpsContext) -> u32 {
    let connection = Connection { raw: context.ops };
    match context.op() {
        BPF_SOCK_OPS_TCP_CONNECT_CB => connection.hand_over(),
        BPF_SOCK_OPS_STATE_CB => connection.change(),
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB | BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => {
            accelerate::take_application(&connection);
        }
        _ => {}
    }
    0
}

/// A TCP socket of the pod at a turning point.
pub struct Connection {
    pub raw: *mut bpf_sock_ops,
}

impl Connection {
    /// Before the SYN leaves.
    #[inline(always)]
    fn hand_over(&self) {
        if !self.is_redirected() {
            return;
        }
        let key = self.key();
        let Some(origin) = self.socket().and_then(|socket| stored(&ORIGIN_STORE, socket)) else {
            // The application called the port itself. What another left behind is not for it.
            let _ = ORIGINS.remove(key);
            return;
        };
        if ORIGINS.insert(key, *origin, 0).is_err() {
            count(Counter::OriginMapFull);
            return;
        }
        count(Counter::OriginStored);
        count_half_open(1);
        self.watch();
    }

    /// Removes what the proxy will not come for: the connection was refused. Once it is established the proxy
    /// takes the entry with `accept`, even when the client has sent and closed long before.
    #[inline(always)]
    fn change(&self) {
        let (from, to) = unsafe {
            let arguments = &raw const (*self.raw).__bindgen_anon_1.args;
            (read_volatile(&raw const (*arguments)[0]), read_volatile(&raw const (*arguments)[1]))
        };
        if from == BPF_TCP_SYN_SENT {
            count_half_open(-1);
            if to == BPF_TCP_CLOSE && ORIGINS.remove(self.key()).is_ok() {
                count(Counter::OriginRemoved);
            }
        } else {
            accelerate::let_go(self);
        }
        let _ = unsafe { bpf_sock_ops_cb_flags_set(self.raw, 0) };
    }

    /// Asks to be told of changes of state.
    #[inline(always)]
    pub fn watch(&self) {
        let _ = unsafe { bpf_sock_ops_cb_flags_set(self.raw, BPF_SOCK_OPS_STATE_CB_FLAG as i32) };
    }

    /// Both ends, IPv4 as v4-mapped.
    #[inline(always)]
    pub fn ends(&self, netns: u64) -> FastKey {
        let (local_port, remote_port) = self.ports();
        let (local, remote) = if self.is_v4() {
            let (local, remote) = self.words4();
            (Address::from_v4(local, local_port), Address::from_v4(remote, remote_port))
        } else {
            (Address::from_words(self.local6(), local_port), Address::from_words(self.remote6(), remote_port))
        };
        FastKey { netns, local, remote }
    }

    /// Whether the other end is the port of the redirect.
    #[inline(always)]
    pub fn is_redirected(&self) -> bool {
        let loopback =
            if self.is_v4() { is_loopback_v4(self.words4().1) } else { is_loopback_v6(&self.remote6()) };
        loopback && self.ports().1 == OUTBOUND_PORT
    }

    /// Whether this end is the port of the redirect.
    #[inline(always)]
    pub fn is_accepted_redirect(&self) -> bool {
        let loopback =
            if self.is_v4() { is_loopback_v4(self.words4().0) } else { is_loopback_v6(&self.local6()) };
        loopback && self.ports().0 == OUTBOUND_PORT
    }

    #[inline(always)]
    fn key(&self) -> OriginKey {
        OriginKey { netns: pod::netns(), source: self.ends(pod::netns()).local }
    }

    /// The mark of the socket: of the proxy's into the pod, and of those accepted from them.
    #[inline(always)]
    pub fn mark(&self) -> u32 {
        let socket = unsafe { (*self.raw).__bindgen_anon_2.sk };
        if socket.is_null() { 0 } else { unsafe { read_volatile(&raw const (*socket).mark) } }
    }

    #[inline(always)]
    fn socket(&self) -> Option<*mut core::ffi::c_void> {
        let socket = unsafe { (*self.raw).__bindgen_anon_2.sk };
        (!socket.is_null()).then_some(socket.cast())
    }

    #[inline(always)]
    fn is_v4(&self) -> bool {
        let family = unsafe { read_volatile(&raw const (*self.raw).family) };
        family != AF_INET6 || is_mapped(&self.remote6())
    }

    /// Local and remote, both in host order.
    #[inline(always)]
    fn ports(&self) -> (u16, u16) {
        let (local, remote) = unsafe {
            (
                read_volatile(&raw const (*self.raw).local_port),
                read_volatile(&raw const (*self.raw).remote_port),
            )
        };
        (local as u16, u32::from_be(remote) as u16)
    }

    #[inline(always)]
    fn words4(&self) -> (u32, u32) {
        unsafe {
            (
                read_volatile(&raw const (*self.raw).local_ip4),
                read_volatile(&raw const (*self.raw).remote_ip4),
            )
        }
    }

    #[inline(always)]
    fn local6(&self) -> [u32; 4] {
        let words = unsafe { &raw const (*self.raw).local_ip6 };
        unsafe {
            [
                read_volatile(&raw const (*words)[0]),
                read_volatile(&raw const (*words)[1]),
                read_volatile(&raw const (*words)[2]),
                read_volatile(&raw const (*words)[3]),
            ]
        }
    }

    #[inline(always)]
    fn remote6(&self) -> [u32; 4] {
        let words = unsafe { &raw const (*self.raw).remote_ip6 };
        unsafe {
            [
                read_volatile(&raw const (*words)[0]),
                read_volatile(&raw const (*words)[1]),
                read_volatile(&raw const (*words)[2]),
                read_volatile(&raw const (*words)[3]),
            ]
        }
    }
}
