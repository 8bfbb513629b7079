//! What a confined process must not be able to do. Each of these is refused by the filter of system
//! calls, whoever asks; most of them a process without rights may do otherwise.

#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use libc::{c_long, syscall};

/// `bpf(2)` commands and types (linux/bpf.h).
const MAP_CREATE: c_long = 0;
const MAP_LOOKUP: c_long = 1;
const MAP_UPDATE: c_long = 2;
const MAP_DELETE: c_long = 3;
const PROG_LOAD: c_long = 5;
const OBJ_GET: c_long = 7;
const HASH: u32 = 1;

/// The part of `union bpf_attr` that makes a map.
#[repr(C)]
struct MakeMap {
    kind: u32,
    key: u32,
    value: u32,
    entries: u32,
    rest: [u32; 12],
}

/// The part that works on elements.
#[repr(C)]
struct Element {
    map: u32,
    _pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

fn error(result: c_long) -> Option<i32> {
    (result < 0).then(|| io::Error::last_os_error().raw_os_error().unwrap())
}

fn make() -> c_long {
    let attributes = MakeMap { kind: HASH, key: 4, value: 8, entries: 4, rest: [0; 12] };
    // SAFETY: the attributes live through the call and are as long as said.
    unsafe { syscall(libc::SYS_bpf, MAP_CREATE, &raw const attributes, size_of::<MakeMap>()) }
}

fn element(command: c_long, map: &OwnedFd, key: u32, value: &mut u64) -> c_long {
    let map = u32::try_from(map.as_raw_fd()).unwrap();
    // Where there is nothing to say, the kernel wants zeroes.
    let value = if command == MAP_DELETE { 0 } else { std::ptr::from_mut(value) as u64 };
    let attributes = Element { map, _pad: 0, key: &raw const key as u64, value, flags: 0 };
    // SAFETY: the attributes, key and value live through the call; the map's sizes are those of both.
    unsafe { syscall(libc::SYS_bpf, command, &raw const attributes, size_of::<Element>()) }
}

/// A map with the element 7 -> 42, as the agent would hand it over.
pub fn make_map() -> OwnedFd {
    let map = make();
    assert!(map >= 0, "root makes a map: {}", io::Error::last_os_error());
    // SAFETY: a descriptor that the kernel has just made, and nobody else has.
    let map = unsafe { OwnedFd::from_raw_fd(i32::try_from(map).unwrap()) };
    for key in [7, 8] {
        assert_eq!(error(element(MAP_UPDATE, &map, key, &mut 42)), None);
    }
    map
}

pub fn maps_are_looked_up_and_not_made(map: &OwnedFd) {
    let mut value = 0;
    assert_eq!(error(element(MAP_LOOKUP, map, 7, &mut value)), None, "lookup by descriptor");
    assert_eq!(value, 42);
    assert_eq!(error(element(MAP_DELETE, map, 7, &mut value)), None, "delete by descriptor");
    assert_eq!(error(element(MAP_LOOKUP, map, 7, &mut value)), Some(libc::ENOENT));
    assert_eq!(error(element(MAP_UPDATE, map, 7, &mut value)), Some(libc::EPERM), "nothing is written");
    assert_eq!(error(make()), Some(libc::EPERM));
}

pub fn root_is_gone() {
    // Through the C library: the whole process, not one thread.
    // SAFETY: numbers alone.
    unsafe {
        assert_eq!(error(libc::setuid(0).into()), Some(libc::EPERM));
        assert_eq!(error(libc::setgid(0).into()), Some(libc::EPERM));
    }
    assert!(std::fs::read("/etc/shadow").is_err());
}

macro_rules! refused {
    ($($call:ident($($argument:expr),*);)+) => {
        vec![$((
            stringify!($call($($argument),*)),
            // SAFETY: the filter answers before the kernel looks at an argument; were it not to, the
            // arguments are such that the call fails or touches this process alone.
            error(unsafe { syscall(libc::$call $(, $argument as c_long)*) }),
        )),+]
    };
}

pub fn calls_are_refused() {
    let raw = libc::SOCK_RAW;
    let (stream, datagram) = (libc::SOCK_STREAM, libc::SOCK_DGRAM);
    let (inet, inet6) = (libc::AF_INET, libc::AF_INET6);
    let executable = libc::PROT_EXEC | libc::PROT_WRITE;
    let private = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let tried = refused! {
        // Other programs and processes.
        SYS_execve(0, 0, 0);
        SYS_execveat(-1, 0, 0, 0, 0);
        SYS_clone(libc::SIGCHLD, 0, 0, 0, 0);
        SYS_clone(libc::CLONE_NEWUSER | libc::SIGCHLD, 0, 0, 0, 0);
        SYS_clone(libc::CLONE_THREAD | libc::CLONE_NEWNET, 0, 0, 0, 0);
        SYS_ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
        SYS_process_vm_readv(libc::getpid(), 0, 0, 0, 0, 0);
        SYS_process_vm_writev(libc::getpid(), 0, 0, 0, 0, 0);
        SYS_pidfd_open(libc::getpid(), 0);
        SYS_pidfd_getfd(-1, 0, 0);
        SYS_kill(libc::getpid(), 0);
        SYS_kcmp(0, 0, 0, 0, 0);
        // Namespaces, mounts, roots.
        SYS_unshare(libc::CLONE_NEWUSER);
        SYS_unshare(0);
        SYS_setns(-1, 0);
        SYS_mount(0, 0, 0, 0, 0);
        SYS_umount2(0, 0);
        SYS_open_tree(-1, 0, 0);
        SYS_move_mount(-1, 0, -1, 0, 0);
        SYS_fsopen(0, 0);
        SYS_chroot(0);
        SYS_pivot_root(0, 0);
        SYS_open_by_handle_at(-1, 0, 0);
        // Rights.
        SYS_setuid(0);
        SYS_setresuid(0, 0, 0);
        SYS_setgid(0);
        SYS_setgroups(0, 0);
        SYS_capset(0, 0);
        SYS_prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0);
        SYS_prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, 0, 0, 0);
        SYS_prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, 0, 0, 0);
        SYS_seccomp(libc::SECCOMP_SET_MODE_FILTER, 0, 0);
        SYS_keyctl(0, 0, 0, 0, 0);
        SYS_add_key(0, 0, 0, 0, 0);
        // BPF.
        SYS_bpf(MAP_CREATE, 0, 0);
        SYS_bpf(PROG_LOAD, 0, 0);
        SYS_bpf(OBJ_GET, 0, 0);
        SYS_perf_event_open(0, 0, 0, 0, 0);
        SYS_io_uring_setup(1, 0);
        SYS_userfaultfd(0);
        // Sockets that are not TCP, UDP or unix.
        SYS_socket(inet, raw, libc::IPPROTO_TCP);
        SYS_socket(inet, raw | libc::SOCK_CLOEXEC, libc::IPPROTO_RAW);
        SYS_socket(inet6, raw, libc::IPPROTO_ICMPV6);
        SYS_socket(inet, datagram, libc::IPPROTO_ICMP);
        SYS_socket(inet, stream, libc::IPPROTO_SCTP);
        SYS_socket(inet, stream, 262);
        SYS_socket(libc::AF_PACKET, raw, 0x300);
        SYS_socket(libc::AF_PACKET, datagram, 0x300);
        SYS_socket(libc::AF_XDP, raw, 0);
        SYS_socket(libc::AF_VSOCK, stream, 0);
        SYS_socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0);
        SYS_socket(libc::AF_NETLINK, raw, libc::NETLINK_SOCK_DIAG);
        SYS_socket(libc::AF_NETLINK, raw, libc::NETLINK_NETFILTER);
        // Code that was not there.
        SYS_mmap(0, 4096, executable, private, -1, 0);
        SYS_mprotect(0, 0, libc::PROT_EXEC);
        SYS_memfd_create(0, 0);
        // The terminal's input, and devices.
        SYS_ioctl(0, libc::TIOCSTI, 0);
        SYS_mknod(0, 0, 0);
        SYS_init_module(0, 0, 0);
        SYS_finit_module(-1, 0, 0);
        SYS_reboot(0, 0, 0, 0);
        SYS_kexec_load(0, 0, 0, 0);
        SYS_sethostname(0, 0);
        SYS_settimeofday(0, 0);
    };
    let let_through: Vec<_> = tried.into_iter().filter(|(_, error)| *error != Some(libc::EPERM)).collect();
    assert!(let_through.is_empty(), "not refused: {let_through:?}");
    // SAFETY: no arguments that the kernel could read; it is not reached.
    let clone3 = error(unsafe { syscall(libc::SYS_clone3, 0, 0) });
    assert_eq!(clone3, Some(libc::ENOSYS), "so that the C library goes on with clone");
    assert!(std::process::Command::new("/bin/true").status().is_err(), "no program is started");
}
