//! The system calls that a proxy needs. Everything else fails with `EPERM`: no program is started, no
//! process traced, no namespace entered or made, nothing mounted, no BPF program or map made, no raw
//! or packet socket opened.

use std::collections::BTreeMap;

use libc::{
    AF_INET, AF_INET6, AF_NETLINK, AF_UNIX, CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS,
    CLONE_NEWPID, CLONE_NEWUSER, CLONE_NEWUTS, CLONE_THREAD, EPERM, FIOCLEX, FIONBIO, FIONREAD, IPPROTO_TCP,
    IPPROTO_UDP, NETLINK_ROUTE, PR_SET_NAME, PROT_EXEC, PROT_WRITE, SOCK_DGRAM, SOCK_STREAM, TCGETS,
    TIOCOUTQ,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Is, SeccompCondition as Condition,
    SeccompFilter, SeccompRule as Rule,
};

use super::ConfineError;

/// Allowed whatever their arguments.
const ALLOWED: &[libc::c_long] = &[
    // Bytes.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_lseek,
    libc::SYS_splice,
    libc::SYS_sendfile,
    libc::SYS_copy_file_range,
    // Sockets; `socket` itself is below.
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_listen,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_shutdown,
    libc::SYS_socketpair,
    // Waiting.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_pipe2,
    libc::SYS_futex,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_restart_syscall,
    // Files: settings, manifests, keys, the access log, the cache of keys; the watch on them.
    libc::SYS_openat,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_fcntl,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_getdents64,
    libc::SYS_readlinkat,
    libc::SYS_getcwd,
    libc::SYS_mkdirat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_unlinkat,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fadvise64,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_umask,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_rm_watch,
    // Memory; what makes it executable is below.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    // Threads and signals of this process; `clone` is below.
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_membarrier,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getpriority,
    libc::SYS_setpriority,
    libc::SYS_getcpu,
    libc::SYS_tgkill,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    // Facts.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getppid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getrusage,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_prlimit64,
];

/// Older names of calls above, which newer architectures do not have.
#[cfg(target_arch = "x86_64")]
const OLDER: &[libc::c_long] = &[
    libc::SYS_access,
    libc::SYS_chmod,
    libc::SYS_dup2,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd,
    libc::SYS_getdents,
    libc::SYS_getrlimit,
    libc::SYS_inotify_init,
    libc::SYS_lstat,
    libc::SYS_mkdir,
    libc::SYS_open,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_select,
    libc::SYS_stat,
    libc::SYS_time,
    libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[libc::c_long] = &[];

/// Commands of `bpf`: look up, delete, look up and delete, and what the descriptor is
/// (linux/bpf.h). They work on descriptors that the agent handed over, nothing else.
const BPF_COMMANDS: [u32; 4] = [1, 3, 21, 15];
/// Commands of `ioctl` on sockets and terminals that change nothing outside of them.
const IOCTLS: [u64; 5] = [FIONBIO, FIONREAD, FIOCLEX, TCGETS, TIOCOUTQ];
/// Flags of `clone` that would make a namespace.
const NAMESPACES: i32 =
    CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET;
/// The type of a socket without SOCK_NONBLOCK and SOCK_CLOEXEC.
const SOCKET_TYPE: u64 = 0xf;

/// Installs both filters on every thread. The stricter one wins for each call.
pub(super) fn install() -> Result<(), ConfineError> {
    // The first keeps `seccomp` itself possible, the second ends that.
    for program in [without_clone3()?, allow_list()?] {
        seccompiler::apply_filter_all_threads(&program)
            .map_err(|error| ConfineError::Filter(error.to_string()))?;
    }
    Ok(())
}

/// `clone3` has its flags in memory, where no filter sees them. The C library goes on with `clone`
/// when it is told that the kernel has no `clone3`, and by no other answer.
fn without_clone3() -> Result<BpfProgram, ConfineError> {
    let rules = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    compile(rules, SeccompAction::Allow, errno(libc::ENOSYS))
}

fn allow_list() -> Result<BpfProgram, ConfineError> {
    let mut rules: BTreeMap<_, _> = ALLOWED.iter().chain(OLDER).map(|call| (*call, Vec::new())).collect();
    // Left to the other filter.
    rules.insert(libc::SYS_clone3, Vec::new());
    for (call, alternatives) in conditional() {
        rules.insert(call, alternatives.into_iter().map(rule).collect::<Result<_, _>>()?);
    }
    compile(rules, errno(EPERM), SeccompAction::Allow)
}

/// A condition: which argument, how it is compared, with what.
type Argument = (u8, Is, u64);

/// Calls that are allowed with some arguments: alternatives, each a list of conditions that all hold.
fn conditional() -> Vec<(libc::c_long, Vec<Vec<Argument>>)> {
    let bits = |mask: i32| Is::MaskedEq(u64::from(mask.unsigned_abs()));
    let one_of = |argument: u8, values: &[u64]| {
        values.iter().map(|value| vec![(argument, Is::Eq, *value)]).collect::<Vec<_>>()
    };
    let bpf: Vec<u64> = BPF_COMMANDS.iter().map(|command| u64::from(*command)).collect();
    vec![
        (libc::SYS_bpf, one_of(0, &bpf)),
        (libc::SYS_ioctl, one_of(1, &IOCTLS)),
        // Names of threads; everything else that prctl can do is done already.
        (libc::SYS_prctl, one_of(0, &[number(PR_SET_NAME)])),
        // Threads alone, in no namespace of their own.
        (libc::SYS_clone, vec![vec![(0, bits(NAMESPACES | CLONE_THREAD), number(CLONE_THREAD))]]),
        (libc::SYS_socket, sockets()),
        // No memory is writable and executable, or becomes executable after it was written. Libraries
        // (name services of the C library) may be loaded still.
        (
            libc::SYS_mmap,
            vec![vec![(2, bits(PROT_EXEC), 0)], vec![(2, bits(PROT_EXEC | PROT_WRITE), number(PROT_EXEC))]],
        ),
        (libc::SYS_mprotect, vec![vec![(2, bits(PROT_EXEC), 0)]]),
    ]
}

/// TCP, UDP, unix sockets, and netlink's list of addresses, by which `getaddrinfo` sorts.
fn sockets() -> Vec<Vec<Argument>> {
    let of_type = |kind: i32| (1, Is::MaskedEq(SOCKET_TYPE), number(kind));
    let mut allowed = vec![
        vec![(0, Is::Eq, number(AF_UNIX))],
        vec![(0, Is::Eq, number(AF_NETLINK)), (2, Is::Eq, number(NETLINK_ROUTE))],
    ];
    for family in [AF_INET, AF_INET6] {
        for (kind, protocol) in [(SOCK_STREAM, IPPROTO_TCP), (SOCK_DGRAM, IPPROTO_UDP)] {
            for protocol in [0, protocol] {
                allowed.push(vec![(0, Is::Eq, number(family)), of_type(kind), (2, Is::Eq, number(protocol))]);
            }
        }
    }
    allowed
}

/// The C library's constants are signed; none of those used here is negative.
fn number(constant: i32) -> u64 {
    u64::from(constant.unsigned_abs())
}

fn errno(number: i32) -> SeccompAction {
    SeccompAction::Errno(number.unsigned_abs())
}

fn rule(arguments: Vec<Argument>) -> Result<Rule, ConfineError> {
    // All of these arguments are 32 bits wide: what stands above them the kernel does not read.
    let condition = |(index, is, value)| Condition::new(index, Length::Dword, is, value);
    let conditions = arguments.into_iter().map(condition).collect::<Result<Vec<_>, _>>();
    let rule = conditions.and_then(Rule::new);
    rule.map_err(|error| ConfineError::Filter(error.to_string()))
}

fn compile(
    rules: BTreeMap<libc::c_long, Vec<Rule>>,
    otherwise: SeccompAction,
    matched: SeccompAction,
) -> Result<BpfProgram, ConfineError> {
    let broken = |error: seccompiler::BackendError| ConfineError::Filter(error.to_string());
    let architecture = std::env::consts::ARCH.try_into().map_err(broken)?;
    let filter = SeccompFilter::new(rules, otherwise, matched, architecture).map_err(broken)?;
    filter.try_into().map_err(broken)
}
