//! A peer's process: started on its core, asked what it costs, killed with the value.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// How many lines of a log go into an error.
const TAIL_LINES: usize = 15;
/// Ticks a second in `/proc`: fixed for user space on every Linux that matters (`USER_HZ`).
const TICKS: f64 = 100.0;
/// Ports that Linux does not use for outgoing connections by default.
const FIRST_PORT: u16 = 12_000;
const PORTS: u16 = 18_000;
/// How far apart processes begin whose ids are neighbours: the golden section of all ports.
const APART: u64 = 11_129;

/// A running peer.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

/// What a process keeps in memory, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident set.
    pub rss: u64,
    /// Its share of what it shares with others, and all of its own.
    pub pss: u64,
}

impl Process {
    /// Starts `program` on one core, in `folder`, its output going to a log there. It dies with us.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(
        program: &Path,
        arguments: &[OsString],
        environment: &[(&str, String)],
        folder: &Path,
        core: usize,
    ) -> io::Result<Self> {
        let log = folder.join("log");
        let file = File::create(&log)?;
        let mut command = Command::new("taskset");
        command.args(["-c", &core.to_string(), "setpriv", "--pdeathsig", "KILL", "--"]);
        command.arg(program).args(arguments).current_dir(folder);
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        Ok(Self { child: command.spawn()?, log })
    }

    /// What was started by other means; its output goes to `log`.
    #[must_use]
    pub fn adopt(child: Child, log: PathBuf) -> Self {
        Self { child, log }
    }

    /// User and system time that all threads have used so far, those that are gone included.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn cpu(&self) -> io::Result<Duration> {
        cpu_of(self.child.id())
    }

    /// What it keeps in memory now.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn memory(&self) -> io::Result<Memory> {
        let text = fs::read_to_string(self.proc("smaps_rollup"))?;
        memory_in(&text).ok_or_else(|| io::Error::other("no Rss and Pss in /proc/PID/smaps_rollup"))
    }

    /// Why it has ended, with the end of its log; nothing while it runs.
    pub fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok()??;
        Some(format!("ended with {status}:\n{}", self.tail()))
    }

    /// The end of its log.
    #[must_use]
    pub fn tail(&self) -> String {
        let text =
            fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(TAIL_LINES)..).unwrap_or_default().join("\n")
    }

    fn proc(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.child.id())
    }
}

/// User and system time of all threads of a process, of one that has just ended too.
///
/// # Errors
/// When it is gone.
pub fn cpu_of(id: u32) -> io::Result<Duration> {
    cpu_in(&fs::read_to_string(format!("/proc/{id}/stat"))?)
        .ok_or_else(|| io::Error::other("no times in /proc/PID/stat"))
}

fn memory_in(text: &str) -> Option<Memory> {
    let of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib * 1024)
    };
    Some(Memory { rss: of("Rss:")?, pss: of("Pss:")? })
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `utime` and `stime`, fields 14 and 15 of proc(5)'s `stat`; the name before them may hold anything.
fn cpu_in(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some(Duration::from_secs_f64((user + system) / TICKS))
}

/// The port that a process tries at a step. Two that are started together have neighbouring ids, and each goes
/// through some dozens of ports: they begin far from each other, for what one has only tried or been
/// given is free to the other.
fn port(process: u32, step: u16) -> u16 {
    let offset = (u64::from(process) * APART + u64::from(step)) % u64::from(PORTS);
    FIRST_PORT + u16::try_from(offset).unwrap_or(0)
}

/// A loopback address that nobody listens on, and that has not been given before.
///
/// # Errors
/// When there is none.
pub fn free_address() -> io::Result<SocketAddr> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    for _ in 0..PORTS {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port(std::process::id(), step)));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    Err(io::Error::other("no free port"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_whatever_the_program_is_called() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 1 0 0 0 150 50 0 0 20 0 1 0 5 6 7";
        assert_eq!(cpu_in(stat), Some(Duration::from_secs(2)));
        assert_eq!(cpu_in("nonsense"), None);
    }

    #[test]
    fn processes_that_are_started_together_try_no_port_in_common() {
        for first in (1..100_000).step_by(1_009) {
            for second in first + 1..first + 20 {
                let ports = |process| (0..300).map(move |step| port(process, step));
                let of_first: std::collections::HashSet<u16> = ports(first).collect();
                assert!(ports(second).all(|port| !of_first.contains(&port)), "{first} and {second}");
            }
        }
        assert!((0..=u16::MAX).all(|step| (FIRST_PORT..FIRST_PORT + PORTS).contains(&port(u32::MAX, step))));
    }

    #[test]
    fn a_process_is_measured_and_its_end_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let script = |text: &str| ["-c".into(), text.into()];
        let allowed = rustix::thread::sched_getaffinity(None).unwrap();
        let core = (0..rustix::thread::CpuSet::MAX_CPU).find(|core| allowed.is_set(*core)).unwrap();
        let sleeping =
            Process::start(Path::new("/bin/sh"), &script("exec sleep 60"), &[], folder.path(), core).unwrap();
        sleeping.cpu().unwrap();
        assert!(sleeping.memory().unwrap().rss > 0);
        drop(sleeping);
        let mut failing =
            Process::start(Path::new("/bin/sh"), &script("echo why; exit 3"), &[], folder.path(), core)
                .unwrap();
        let started = std::time::Instant::now();
        let told = loop {
            if let Some(told) = failing.ended() {
                break told;
            }
            assert!(started.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_millis(10));
        };
        assert!(told.contains("why") && told.contains('3'), "{told}");
    }
}
