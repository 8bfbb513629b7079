//! The system calls for which no safe wrapper exists: `bpf(2)` beyond what aya offers, and two socket
//! options. Everything unsafe of this crate is in this file.
#![allow(unsafe_code)]

use std::{
    ffi::{CString, c_long},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

/// Numbers of `enum bpf_cmd` in linux/bpf.h.
mod command {
    pub(super) const LOOKUP: u32 = 1;
    pub(super) const UPDATE: u32 = 2;
    pub(super) const DELETE: u32 = 3;
    pub(super) const NEXT_KEY: u32 = 4;
    pub(super) const PIN: u32 = 6;
    pub(super) const GET: u32 = 7;
    pub(super) const PROG_ATTACH: u32 = 8;
    pub(super) const INFO: u32 = 15;
    pub(super) const TAKE: u32 = 21;
    pub(super) const LINK_CREATE: u32 = 28;
    pub(super) const LINK_UPDATE: u32 = 29;
    pub(super) const LINK_DETACH: u32 = 34;
}

/// `BPF_F_RDONLY`: what is opened so cannot be written.
pub(crate) const READ_ONLY: u32 = 1 << 3;
/// `BPF_F_BEFORE`, with nothing to be before: first of all tcx programs.
const FIRST: u32 = 1 << 3;
/// `BPF_SK_MSG_VERDICT`.
const SK_MSG_VERDICT: u32 = 7;

/// # Safety
/// Every address in `attribute` has to be valid for what `command` does with it.
unsafe fn bpf<T>(command: u32, attribute: &mut T) -> io::Result<c_long> {
    let pointer: *mut T = attribute;
    // SAFETY: the attribute is a live `repr(C)` struct of this size; the caller answers for its addresses.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, pointer, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn new_fd(number: c_long) -> io::Result<OwnedFd> {
    let number = i32::try_from(number).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// The file descriptor as the attributes of `bpf` hold it.
fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}

#[repr(C)]
struct Element {
    map: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

fn element(map: BorrowedFd<'_>, key: *const u8, value: *const u8, flags: u64) -> Element {
    Element { map: number(map), pad: 0, key: key as u64, value: value as u64, flags }
}

/// Whether an element was there; errors other than `ENOENT` are errors.
fn found(result: io::Result<c_long>) -> io::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// A map whose key and value sizes were asked of the kernel, so that no buffer is too short.
#[derive(Debug)]
pub(crate) struct Map {
    fd: OwnedFd,
    key: usize,
    value: usize,
}

impl Map {
    /// `value` is the size as the system call has it: for per-CPU maps, that of all CPUs together.
    pub(crate) fn new(fd: OwnedFd, kind: u32, key: usize, value: usize) -> io::Result<Self> {
        let info = map_info(fd.as_fd())?;
        let per_cpu = kind == map_kind::PERCPU_ARRAY;
        let expected = if per_cpu { 8 } else { value };
        let sizes = (info.key_size as usize, info.value_size as usize);
        if info.kind != kind || sizes != (key, expected) {
            let found = format!("map of kind {}, key {} and value {} bytes", info.kind, sizes.0, sizes.1);
            let wanted = format!("kind {kind}, key {key} and value {expected} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{found} in place of {wanted}")));
        }
        Ok(Self { fd, key, value })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn check(&self, key: &[u8], value: Option<&[u8]>) -> io::Result<()> {
        if key.len() == self.key && value.is_none_or(|value| value.len() == self.value) {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::InvalidInput, "key or value of another size than the map's"))
    }

    /// Whether the key is there; if so, `value` holds its value.
    pub(crate) fn get(&self, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
        self.check(key, Some(value))?;
        let mut attribute = element(self.fd(), key.as_ptr(), value.as_mut_ptr(), 0);
        // SAFETY: key and value are live and as long as the map's, by `check`.
        found(unsafe { bpf(command::LOOKUP, &mut attribute) })
    }

    /// The same, and removes it, in one step.
    pub(crate) fn take(&self, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
        self.check(key, Some(value))?;
        let mut attribute = element(self.fd(), key.as_ptr(), value.as_mut_ptr(), 0);
        // SAFETY: key and value are live and as long as the map's, by `check`.
        found(unsafe { bpf(command::TAKE, &mut attribute) })
    }

    pub(crate) fn set(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.check(key, Some(value))?;
        let mut attribute = element(self.fd(), key.as_ptr(), value.as_ptr(), 0);
        // SAFETY: key and value are live and as long as the map's, by `check`; the kernel only reads them.
        unsafe { bpf(command::UPDATE, &mut attribute) }.map(drop)
    }

    /// Whether it was there.
    pub(crate) fn remove(&self, key: &[u8]) -> io::Result<bool> {
        self.check(key, None)?;
        let mut attribute = element(self.fd(), key.as_ptr(), std::ptr::null(), 0);
        // SAFETY: the key is live and as long as the map's, by `check`.
        found(unsafe { bpf(command::DELETE, &mut attribute) })
    }

    /// The key after `key`, or the first one; false: there is none.
    pub(crate) fn next(&self, key: Option<&[u8]>, next: &mut [u8]) -> io::Result<bool> {
        self.check(key.unwrap_or(next), None)?;
        self.check(next, None)?;
        let pointer = key.map_or(std::ptr::null(), <[u8]>::as_ptr);
        let mut attribute = element(self.fd(), pointer, next.as_mut_ptr(), 0);
        // SAFETY: both are live and as long as the map's keys, by `check`; a null key asks for the first.
        found(unsafe { bpf(command::NEXT_KEY, &mut attribute) })
    }
}

/// Numbers of `enum bpf_map_type`.
pub(crate) mod map_kind {
    pub(crate) const HASH: u32 = 1;
    pub(crate) const PERCPU_ARRAY: u32 = 6;
    pub(crate) const LRU_HASH: u32 = 9;
    pub(crate) const SOCKMAP: u32 = 15;
}

/// The head of `struct bpf_map_info`.
#[repr(C)]
#[derive(Default)]
struct MapInfo {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
}

#[repr(C)]
struct Info {
    fd: u32,
    length: u32,
    address: u64,
}

fn map_info(map: BorrowedFd<'_>) -> io::Result<MapInfo> {
    let mut info = MapInfo::default();
    let length = u32::try_from(size_of::<MapInfo>()).map_err(io::Error::other)?;
    let mut attribute = Info { fd: number(map), length, address: (&raw mut info) as u64 };
    // SAFETY: the kernel writes at most `length` bytes to `info`, all of whose bit patterns are valid.
    unsafe { bpf(command::INFO, &mut attribute)? };
    Ok(info)
}

/// What a link is attached to now; zero where that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target(pub(crate) u64);

/// `struct bpf_link_info` as far as the kinds of links here go.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    pad: u32,
    target: [u64; 6],
}

/// `BPF_LINK_TYPE_CGROUP`, whose target is 64 bits wide; those of the others are 32.
const LINK_CGROUP: u32 = 3;

/// The cgroup's id, the namespace's inode or the interface's index that a link is attached to.
pub(crate) fn link_target(link: BorrowedFd<'_>) -> io::Result<Target> {
    let mut info = LinkInfo::default();
    let length = u32::try_from(size_of::<LinkInfo>()).map_err(io::Error::other)?;
    let mut attribute = Info { fd: number(link), length, address: (&raw mut info) as u64 };
    // SAFETY: the kernel writes at most `length` bytes to `info`, all of whose bit patterns are valid.
    unsafe { bpf(command::INFO, &mut attribute)? };
    let [target, ..] = info.target;
    if info.kind == LINK_CGROUP { Ok(Target(target)) } else { Ok(Target(target & 0xffff_ffff)) }
}

#[repr(C)]
struct LinkCreate {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    order: [u64; 2],
}

/// What a program is attached to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place<'a> {
    /// A cgroup's folder or a network namespace.
    Fd(BorrowedFd<'a>),
    /// An interface of the calling thread's network namespace; before all other programs there.
    Interface(u32),
}

/// Attaches a program; it stays as long as the link is open or pinned.
pub(crate) fn link_create(
    program: BorrowedFd<'_>,
    place: Place<'_>,
    attach_type: u32,
) -> io::Result<OwnedFd> {
    let (target, flags) = match place {
        Place::Fd(fd) => (number(fd), 0),
        Place::Interface(index) => (index, FIRST),
    };
    let mut attribute = LinkCreate { program: number(program), target, attach_type, flags, order: [0; 2] };
    // SAFETY: the attribute holds no address.
    new_fd(unsafe { bpf(command::LINK_CREATE, &mut attribute)? })
}

#[repr(C)]
struct LinkUpdate {
    link: u32,
    program: u32,
    flags: u32,
    old: u32,
}

/// Puts another program in the place of a link's, with no instant between.
pub(crate) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attribute = LinkUpdate { link: number(link), program: number(program), flags: 0, old: 0 };
    // SAFETY: the attribute holds no address.
    unsafe { bpf(command::LINK_UPDATE, &mut attribute) }.map(drop)
}

/// Detaches a link's program at once; removing the last pin does so some time later.
pub(crate) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attribute = number(link);
    // SAFETY: the attribute holds no address.
    unsafe { bpf(command::LINK_DETACH, &mut attribute) }.map(drop)
}

#[repr(C)]
struct ProgAttach {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
}

/// Makes a program the `sk_msg` one of a map of sockets, in place of the one before.
pub(crate) fn attach_sk_msg(program: BorrowedFd<'_>, map: BorrowedFd<'_>) -> io::Result<()> {
    let (target, program) = (number(map), number(program));
    let mut attribute = ProgAttach { target, program, attach_type: SK_MSG_VERDICT, flags: 0 };
    // SAFETY: the attribute holds no address.
    unsafe { bpf(command::PROG_ATTACH, &mut attribute) }.map(drop)
}

#[repr(C)]
struct Object {
    path: u64,
    fd: u32,
    flags: u32,
}

fn path_of(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

/// Gives a link a name in a BPF file system.
pub(crate) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = path_of(path)?;
    let mut attribute = Object { path: path.as_ptr() as u64, fd: number(object), flags: 0 };
    // SAFETY: the path is a live C string; the kernel only reads it.
    unsafe { bpf(command::PIN, &mut attribute) }.map(drop)
}

/// Opens what is pinned there.
pub(crate) fn pinned(path: &Path, flags: u32) -> io::Result<OwnedFd> {
    let path = path_of(path)?;
    let mut attribute = Object { path: path.as_ptr() as u64, fd: 0, flags };
    // SAFETY: the path is a live C string; the kernel only reads it.
    new_fd(unsafe { bpf(command::GET, &mut attribute)? })
}

/// `SO_NETNS_COOKIE` (linux/socket.h), kernel 5.14.
const SO_NETNS_COOKIE: i32 = 71;

/// Cookie of a socket's network namespace.
pub(crate) fn netns_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut cookie = 0u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).map_err(io::Error::other)?;
    // SAFETY: the kernel writes at most `length` bytes, which is the size of `cookie`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

/// Moves the calling thread into a fresh network namespace.
pub(crate) fn new_netns() -> io::Result<()> {
    // SAFETY: changes nothing but the calling thread's namespace; no memory is involved.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
