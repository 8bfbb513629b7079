//! The maps. All pods share them, but for the two that live on sockets.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use abi::{
    Address, Counter, DnsKey, DnsPorts, DnsServers, FastKey, MAX_CGROUPS, MAX_COUNTERS, MAX_DNS_ORIGINS,
    MAX_FAST, MAX_ORIGINS, MAX_PODS, Origin, OriginKey, PodEntry, SLOT_WIDTH,
};
use aya_ebpf::bindings::BPF_SK_STORAGE_GET_F_CREATE;
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::helpers::generated::{bpf_sk_storage_delete, bpf_sk_storage_get};
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, SockHash, SockMap};

/// Where the application's TCP socket wanted to go.
#[btf_map]
pub static ORIGIN_STORE: SkStorage<Origin> = SkStorage::new();
/// Which DNS servers the application's UDP socket has asked.
#[btf_map]
pub static DNS_STORE: SkStorage<DnsServers> = SkStorage::new();

/// Original destinations on their way to the proxy, which removes what it takes.
#[map]
pub static ORIGINS: HashMap<OriginKey, Origin> = HashMap::pinned(MAX_ORIGINS, 0);
/// The server that a query to the DNS forwarder was meant for.
#[map]
pub static DNS_ORIGINS: LruHashMap<DnsKey, Address> = LruHashMap::pinned(MAX_DNS_ORIGINS, 0);
/// By netns cookie: the forwarder's ports.
#[map]
pub static DNS_PORTS: HashMap<u64, DnsPorts> = HashMap::pinned(MAX_PODS, 0);
/// By netns cookie: the slot of a pod that the proxy serves.
#[map]
pub static READY: HashMap<u64, u32> = HashMap::pinned(MAX_PODS, 0);
/// The proxy's listeners, `SLOT_WIDTH` for each pod.
#[map]
pub static LISTEN: SockMap = SockMap::pinned(MAX_PODS * SLOT_WIDTH, 0);
/// Cgroups whose sockets may open connections to the outside: the agent's.
#[map]
pub static ALLOWED_CGROUPS: HashMap<u64, u8> = HashMap::pinned(MAX_CGROUPS, 0);
/// How many connections of the pod were begun and not yet answered. Each pod's programs have their own.
#[map]
static HALF_OPEN: Array<u64> = Array::with_max_entries(1, 0);
#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::pinned(MAX_COUNTERS, 0);
/// The loader's own, so that it finds the pods again after a restart. No program reads it.
#[map]
static PODS: HashMap<u32, PodEntry> = HashMap::pinned(MAX_PODS, 0);
/// By netns cookie: pods whose connections are accelerated. Their own programs put them there.
#[map]
pub static FAST_PODS: LruHashMap<u64, u8> = LruHashMap::pinned(MAX_PODS, 0);
/// How many bytes an accelerated socket has sent past TCP; `u64::MAX` once it goes by TCP.
#[btf_map]
pub static FAST_STORE: SkStorage<u64> = SkStorage::new();
/// The application's ends of accelerated connections; what they send goes through `accelerate`.
#[map]
pub static FAST: SockHash<FastKey> = SockHash::pinned(MAX_FAST, 0);
/// The proxy's ends, to which it goes.
#[map]
pub static FAST_PROXY: SockHash<FastKey> = SockHash::pinned(MAX_FAST, 0);

#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
        unsafe { *value += 1 }
    }
}

/// How many connections of the pod were begun and not yet answered. Less than none after a renewal of the
/// programs, whose map begins anew: what was begun under the old ones ends under these.
#[inline(always)]
pub fn half_open() -> u64 {
    match HALF_OPEN.get(0) {
        Some(value) if (*value as i64) < 0 => 0,
        Some(value) => *value,
        None => u64::MAX,
    }
}

/// One connection more, or one less.
#[inline(always)]
pub fn count_half_open(change: i64) {
    if let Some(value) = HALF_OPEN.get_ptr_mut(0) {
        let _ = unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(value, change as u64) };
    }
}

/// What `store` holds for a socket.
#[inline(always)]
pub fn stored<T>(store: &'static SkStorage<T>, socket: *mut core::ffi::c_void) -> Option<&'static mut T> {
    let map = core::ptr::from_ref(store).cast_mut().cast();
    unsafe { bpf_sk_storage_get(map, socket, core::ptr::null_mut(), 0).cast::<T>().as_mut() }
}

/// What `store` holds for a socket, zeros where it held nothing; none when there is no memory.
#[inline(always)]
pub fn stored_or_new<T>(
    store: &'static SkStorage<T>,
    socket: *mut core::ffi::c_void,
) -> Option<&'static mut T> {
    let map = core::ptr::from_ref(store).cast_mut().cast();
    let flags = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
    unsafe { bpf_sk_storage_get(map, socket, core::ptr::null_mut(), flags).cast::<T>().as_mut() }
}

/// Removes what `store` holds for a socket, if anything.
#[inline(always)]
pub fn forget<T>(store: &'static SkStorage<T>, socket: *mut core::ffi::c_void) {
    let map = core::ptr::from_ref(store).cast_mut().cast();
    let _ = unsafe { bpf_sk_storage_delete(map, socket) };
}
