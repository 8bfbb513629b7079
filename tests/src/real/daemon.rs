//! A program that runs beside the tests: its log, its readiness, its end.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;

use super::error::{RealError, Result};

/// How many lines of the log go into an error.
const TAIL_LINES: usize = 40;
/// How often a wait looks again.
const POLL: Duration = Duration::from_millis(50);

/// Runs the program, passes SIGTERM on to it, and ends it when the test process is gone: then our end
/// of the pipe on its standard input closes. So a test that is killed, or a server in a `static`,
/// leaves nothing behind. The whole process group is killed, as start scripts have children of their own.
const KEEPER: &str = r#"
exec 3<&0 </dev/null
( trap '' TERM INT; cat <&3 >/dev/null; kill -s KILL -- -$$ ) &
exec 3<&-
child= asked=
trap 'asked=1; [ -z "$child" ] || kill -s TERM $child' TERM
"$@" &
child=$!
[ -z "$asked" ] || kill -s TERM $child
while :; do
    wait $child; status=$?
    kill -0 $child 2>/dev/null || break
done
exit $status
"#;

/// A running program with a folder of its own. Dropping it kills it and removes the folder.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    keeper: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts `command` in a process group of its own, its output going to `log` (begun anew).
    ///
    /// # Errors
    /// When the log cannot be written or no process can be made.
    pub fn spawn(name: &str, command: &Command, log: &Path) -> Result<Self> {
        let file = File::create(log)?;
        let mut keeper = Command::new("/bin/sh");
        keeper.arg("-c").arg(KEEPER).arg(name).arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => keeper.env(key, value),
                None => keeper.env_remove(key),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            keeper.current_dir(folder);
        }
        keeper.stdin(Stdio::piped()).stdout(file.try_clone()?).stderr(file).process_group(0);
        let _no_port_is_tried = super::BEGINNING.lock();
        Ok(Self { name: name.to_owned(), keeper: keeper.spawn()?, log: log.to_owned() })
    }

    /// Waits until `ready` says yes.
    ///
    /// # Errors
    /// When the program ends first, or `limit` passes.
    pub async fn wait_until<F>(&mut self, limit: Duration, ready: F) -> Result<()>
    where
        F: AsyncFn(&Self) -> bool,
    {
        let started = Instant::now();
        loop {
            if ready(self).await {
                return Ok(());
            }
            if let Some(status) = self.keeper.try_wait()? {
                return Err(self.ended(status));
            }
            if started.elapsed() > limit {
                return Err(self.too_slow("ready", limit));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until the program has ended by itself, whatever its status, and gives what it wrote.
    ///
    /// # Errors
    /// When it has not ended within `limit`; it is then killed.
    pub async fn finish(mut self, limit: Duration) -> Result<String> {
        self.wait_for_end("finished", limit).await?;
        Ok(self.log())
    }

    /// Asks the program to end (SIGTERM) and waits until it has.
    ///
    /// # Errors
    /// When it has not ended within `limit`; it is then killed by the drop.
    pub async fn stop(mut self, limit: Duration) -> Result<()> {
        if let Some(pid) = self.pid() {
            kill_process(pid, Signal::TERM).map_err(io::Error::from)?;
        }
        self.wait_for_end("stopped", limit).await
    }

    /// Kills the program and its children at once (SIGKILL).
    pub fn kill(self) {
        drop(self);
    }

    /// Freezes the program and its children: sockets stay open, and nobody answers.
    ///
    /// # Errors
    /// When it is gone.
    pub fn pause(&self) -> Result<()> {
        self.signal_group(Signal::STOP)
    }

    /// Ends a [`pause`](Self::pause).
    ///
    /// # Errors
    /// When it is gone.
    pub fn resume(&self) -> Result<()> {
        self.signal_group(Signal::CONT)
    }

    /// Everything the program has written so far.
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The process id of the program itself, which is not its keeper's: for figures from `/proc`.
    ///
    /// # Errors
    /// When the program is not running.
    pub fn program_pid(&self) -> Result<u32> {
        let keeper = self.keeper.id();
        let children = fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children"))?;
        // The keeper's other child is a shell of its own, which waits for our end of the pipe.
        let is_program = |pid: &u32| {
            fs::read_link(format!("/proc/{pid}/exe"))
                .is_ok_and(|exe| fs::read_link(format!("/proc/{keeper}/exe")).is_ok_and(|own| own != exe))
        };
        children
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .find(is_program)
            .ok_or_else(|| RealError::Shape(format!("{} is not running", self.name)))
    }

    async fn wait_for_end(&mut self, wanted: &'static str, limit: Duration) -> Result<()> {
        let started = Instant::now();
        while self.keeper.try_wait()?.is_none() {
            if started.elapsed() > limit {
                return Err(self.too_slow(wanted, limit));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    fn signal_group(&self, signal: Signal) -> Result<()> {
        if let Some(pid) = self.pid() {
            kill_process_group(pid, signal).map_err(io::Error::from)?;
        }
        Ok(())
    }

    fn pid(&self) -> Option<Pid> {
        i32::try_from(self.keeper.id()).ok().and_then(Pid::from_raw)
    }

    fn ended(&self, status: ExitStatus) -> RealError {
        RealError::Ended { name: self.name.clone(), status: status.to_string(), log: tail(&self.log()) }
    }

    fn too_slow(&self, wanted: &'static str, waited: Duration) -> RealError {
        RealError::TooSlow { name: self.name.clone(), wanted, waited, log: tail(&self.log()) }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The keeper has not been waited for, so its id is still this group's and nobody else's;
        // where it has ended, the closing of the pipe lets the rest of the group kill itself.
        if matches!(self.keeper.try_wait(), Ok(None)) {
            let _ = self.signal_group(Signal::KILL);
            let _ = self.keeper.wait();
        }
    }
}

/// A folder for one running component, below the cache, removed with the value.
pub(super) fn run_folder(name: &str) -> Result<TempDir> {
    let runs = xtask::provision::cache().join("run");
    fs::create_dir_all(&runs)?;
    Ok(tempfile::Builder::new().prefix(&format!("{name}-")).tempdir_in(runs)?)
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let from = lines.len().saturating_sub(TAIL_LINES);
    lines.get(from..).unwrap_or_default().join("\n")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(script);
        command
    }

    fn alive(pid: u32) -> bool {
        // A zombie that nobody has reaped yet is dead for us.
        fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
    }

    async fn pid_in_log(daemon: &mut Daemon) -> u32 {
        daemon.wait_until(LIMIT, async |daemon| daemon.log().ends_with('\n')).await.unwrap();
        daemon.log().trim().parse().unwrap()
    }

    async fn gone(pid: u32) -> bool {
        let started = Instant::now();
        while alive(pid) && started.elapsed() < LIMIT {
            tokio::time::sleep(POLL).await;
        }
        !alive(pid)
    }

    #[tokio::test]
    async fn a_program_that_ends_early_is_an_error_with_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let script = shell("echo no such option; exit 3");
        let mut daemon = Daemon::spawn("early", &script, &folder.path().join("log")).unwrap();
        let error = daemon.wait_until(LIMIT, async |_| false).await.unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("no such option"), "{error}");
    }

    #[tokio::test]
    async fn a_program_that_is_never_ready_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let mut daemon = Daemon::spawn("slow", &shell("sleep 60"), &folder.path().join("log")).unwrap();
        let limit = Duration::from_millis(200);
        let error = daemon.wait_until(limit, async |_| false).await.unwrap_err();
        assert!(matches!(error, RealError::TooSlow { wanted: "ready", .. }), "{error}");
    }

    #[tokio::test]
    async fn dropping_kills_the_children_too() {
        let folder = tempfile::tempdir().unwrap();
        let script = shell("sleep 60 & echo $!; wait");
        let mut daemon = Daemon::spawn("parent", &script, &folder.path().join("log")).unwrap();
        let child = pid_in_log(&mut daemon).await;
        assert!(alive(child));
        drop(daemon);
        assert!(gone(child).await);
    }

    #[tokio::test]
    async fn stopping_passes_the_signal_on() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let script = shell("trap 'echo farewell; exit 0' TERM; echo up; while :; do sleep 0.1; done");
        let mut daemon = Daemon::spawn("polite", &script, &log).unwrap();
        daemon.wait_until(LIMIT, async |daemon| daemon.log().contains("up")).await.unwrap();
        daemon.stop(LIMIT).await.unwrap();
        assert!(fs::read_to_string(&log).unwrap().contains("farewell"));
    }

    #[tokio::test]
    async fn the_program_s_own_id_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("/bin/sleep");
        command.arg("60");
        let mut daemon = Daemon::spawn("sleeper", &command, &folder.path().join("log")).unwrap();
        daemon.wait_until(LIMIT, async |daemon| daemon.program_pid().is_ok()).await.unwrap();
        let name = fs::read_to_string(format!("/proc/{}/comm", daemon.program_pid().unwrap())).unwrap();
        assert_eq!(name.trim(), "sleep");
    }

    #[tokio::test]
    async fn a_program_dies_with_the_test_process() {
        let folder = tempfile::tempdir().unwrap();
        let script = shell("echo $$; exec sleep 60");
        let mut daemon = Daemon::spawn("orphan", &script, &folder.path().join("log")).unwrap();
        let child = pid_in_log(&mut daemon).await;
        // What the kernel does with our end of the pipe when this process dies.
        drop(daemon.keeper.stdin.take());
        assert!(gone(child).await);
    }
}
