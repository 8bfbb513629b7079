//! A program in a pod or on the node, talked to in lines.

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::PathBuf,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use super::{Error, Result};

const POLL: Duration = Duration::from_millis(10);
/// Lines kept of a program that talks much; older ones go.
const LINES_MAX: usize = 20_000;

/// A running program. Dropping it kills it.
pub struct Program {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    said: Arc<Said>,
}

#[derive(Default)]
struct Said {
    lines: Mutex<Lines>,
    more: Condvar,
}

#[derive(Default)]
struct Lines {
    lines: Vec<String>,
    /// Outputs that have ended, of two.
    ended: u8,
    /// Up to here lines have been handed out by [`Program::line`].
    read: usize,
}

impl Program {
    /// Starts `command`.
    ///
    /// # Errors
    /// When no process can be made.
    pub fn start(name: &str, mut command: Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let said = Arc::new(Said::default());
        let outputs: [Option<Box<dyn Read + Send>>; 2] = [
            child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
            child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
        ];
        for output in outputs.into_iter().flatten() {
            let said = Arc::clone(&said);
            thread::spawn(move || listen(output, &said));
        }
        let stdin = child.stdin.take();
        Ok(Self { name: name.to_owned(), child, stdin, said })
    }

    /// Runs `command` to its end and gives what it wrote; its exit must be 0.
    ///
    /// # Errors
    /// When it fails or takes longer than `limit`.
    pub fn run(name: &str, command: Command, limit: Duration) -> Result<String> {
        let (status, said) = Self::start(name, command)?.finish(limit)?;
        if status.success() {
            return Ok(said);
        }
        Err(Error::Program { name: name.to_owned(), what: format!("ended with {status}"), said })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes a line to it.
    ///
    /// # Errors
    /// When it does not read any more.
    pub fn tell(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().ok_or_else(|| Error::Late("its input is closed".to_owned()))?;
        writeln!(stdin, "{line}")?;
        Ok(stdin.flush()?)
    }

    /// Ends its input.
    pub fn end_input(&mut self) {
        self.stdin = None;
    }

    /// The next line that begins with `start`; those in between are passed over.
    ///
    /// # Errors
    /// When none comes within `limit`, or the program has ended without one.
    pub fn line(&self, start: &str, limit: Duration) -> Result<String> {
        let until = Instant::now() + limit;
        let mut lines = self.lock();
        loop {
            while let Some(line) = lines.lines.get(lines.read).cloned() {
                lines.read += 1;
                if line.starts_with(start) {
                    return Ok(line);
                }
            }
            let left = until.saturating_duration_since(Instant::now());
            if lines.ended == 2 || left.is_zero() {
                drop(lines);
                let why = if left.is_zero() { "in time" } else { "before its end" };
                return Err(self.failed(&format!("no line {start:?} {why}")));
            }
            lines = self.said.more.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// All it has written so far.
    #[must_use]
    pub fn said(&self) -> String {
        self.lock().lines.join("\n")
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn runs(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits for its end, its input ended.
    ///
    /// # Errors
    /// When it has not ended within `limit`.
    pub fn finish(mut self, limit: Duration) -> Result<(ExitStatus, String)> {
        self.stdin = None;
        let until = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                self.hear_out();
                return Ok((status, self.said()));
            }
            if Instant::now() > until {
                return Err(self.failed(&format!("still running after {limit:?}")));
            }
            thread::sleep(POLL);
        }
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: rustix::process::Signal) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).map_err(std::io::Error::from)?;
        Ok(())
    }

    /// Kills it at once (SIGKILL) and waits until it is gone.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// The last output may still be in the pipe when the process is gone; what it has started may
    /// hold the pipe open for ever.
    fn hear_out(&self) {
        let until = Instant::now() + Duration::from_secs(2);
        let mut lines = self.lock();
        while lines.ended < 2 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            lines = self.said.more.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.said.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, what: &str) -> Error {
        Error::Program { name: self.name.clone(), what: what.to_owned(), said: self.said() }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn listen(output: impl Read, said: &Said) {
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    loop {
        line.clear();
        let ended = output.read_until(b'\n', &mut line).map_or(true, |length| length == 0);
        let mut lines = said.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if ended {
            lines.ended += 1;
        } else {
            lines.lines.push(String::from_utf8_lossy(&line).trim_end().to_owned());
            if lines.lines.len() > LINES_MAX {
                lines.lines.remove(0);
                lines.read = lines.read.saturating_sub(1);
            }
        }
        drop(lines);
        said.more.notify_all();
        if ended {
            return;
        }
    }
}

/// Asks again and again until `what` is so.
///
/// # Errors
/// When it is not within `limit`; the last reason is told.
pub fn eventually<T>(
    what: &str,
    limit: Duration,
    mut ask: impl FnMut() -> std::result::Result<T, String>,
) -> Result<T> {
    let until = Instant::now() + limit;
    loop {
        match ask() {
            Ok(value) => return Ok(value),
            Err(why) if Instant::now() > until => {
                return Err(Error::Late(format!("{what}: not within {limit:?}: {why}")));
            }
            Err(_) => thread::sleep(POLL),
        }
    }
}

/// The program that runs inside pods (`src/bin/in-pod`), built beside the tests.
///
/// # Errors
/// When it has not been built.
pub fn in_pod() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let built = own.ancestors().nth(2).map(|folder| folder.join("in-pod"));
    built.filter(|file| file.is_file()).ok_or_else(|| {
        Error::Late("target/<profile>/in-pod is not built: cargo build -p tests --bins".to_owned())
    })
}
