//! Running other programs: visibly, or quietly with a log that is shown only when they fail.

use std::error::Error;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How many lines of a failed program's output go into the error.
const TAIL_LINES: usize = 25;
/// How often a running program is looked at.
const POLL: Duration = Duration::from_millis(50);

/// One sentence for the person at the terminal: what is missing or what failed.
#[derive(Debug)]
pub struct Failure(pub String);

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Error for Failure {}

/// Attaches what was being done to an IO error.
pub trait Context<T> {
    /// `doing` reads on after "cannot", such as `write target/real/x`.
    ///
    /// # Errors
    /// The IO error of `self`, as a [`Failure`].
    fn doing(self, doing: impl fmt::Display) -> Result<T, Failure>;
}

impl<T> Context<T> for io::Result<T> {
    fn doing(self, doing: impl fmt::Display) -> Result<T, Failure> {
        self.map_err(|error| Failure(format!("cannot {doing}: {error}")))
    }
}

/// Prints one line for the person at the terminal. A closed terminal is no reason to stop.
pub fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// The workspace's root folder.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// The cargo that runs us, at the workspace's root.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Runs a program whose output the person wants to see.
///
/// # Errors
/// When it cannot be started or ends with another code than 0.
pub fn show(command: &mut Command) -> Result<(), Failure> {
    let status = command.stdin(Stdio::null()).status().doing(format_args!("start {}", name(command)))?;
    if status.success() { Ok(()) } else { Err(Failure(format!("{} ended with {status}", name(command)))) }
}

/// Runs a program whose output goes to `log`, and is looked at only when it fails.
///
/// # Errors
/// When it cannot be started, ends with another code than 0 (with the tail of its output), or
/// takes longer than `limit`, at which it is killed.
pub fn quiet(command: &mut Command, log: &Path, limit: Duration) -> Result<(), Failure> {
    let file = File::create(log).doing(format_args!("write {}", log.display()))?;
    let copy = file.try_clone().doing(format_args!("write {}", log.display()))?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(copy)
        .spawn()
        .doing(format_args!("start {}", name(command)))?;
    let started = Instant::now();
    loop {
        let ended = child.try_wait().doing(format_args!("wait for {}", name(command)))?;
        match ended {
            Some(status) if status.success() => return Ok(()),
            Some(status) => {
                return Err(Failure(format!("{} ended with {status}:\n{}", name(command), tail(log))));
            }
            None if started.elapsed() > limit => {
                let _ = child.kill();
                let _ = child.wait();
                let seconds = limit.as_secs();
                return Err(Failure(format!(
                    "{} took longer than {seconds} s:\n{}",
                    name(command),
                    tail(log)
                )));
            }
            None => thread::sleep(POLL),
        }
    }
}

/// What a short program prints on both its outputs, or nothing when it cannot be run.
pub fn output(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| {
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        text
    })
}

/// Whether `program` is an executable file in one of `$PATH`'s folders; gives its path.
pub fn find(program: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| {
        fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    })
}

/// `$PATH` with `folder` before all others.
pub fn path_with(folder: &Path) -> OsString {
    let mut path = folder.as_os_str().to_owned();
    if let Some(rest) = std::env::var_os("PATH") {
        path.push(":");
        path.push(rest);
    }
    path
}

fn name(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().take(4).map(|word| word.to_string_lossy().into_owned()));
    words.join(" ")
}

fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(TAIL_LINES);
    lines.get(from..).unwrap_or_default().join("\n")
}
