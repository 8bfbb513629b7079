//! Other people's programs.

use std::{
    ffi::OsStr,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use super::{Error, Namespace};

/// Enters the cgroup, then becomes the rest. A shell does it because a child cannot enter a cgroup
/// between fork and exec without unsafe code.
const ENTER: &str = "echo $$ > \"$1/cgroup.procs\" && shift && exec \"$@\"";

/// `program` in a network namespace and a cgroup.
pub(super) fn command(namespace: &Namespace, cgroup: &Path, program: &OsStr) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", ENTER, "sh"]).arg(cgroup);
    command.arg("nsenter").arg(format!("--net={}", namespace.path().display())).arg("--").arg(program);
    command
}

/// Runs a program to its end, with `input` on its standard input.
pub(super) fn run(program: &str, arguments: &[&str], input: &str) -> Result<String, Error> {
    let failed = |said: String| Error::Tool { program: format!("{program} {}", arguments.join(" ")), said };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read it says by its exit what was wrong.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(failed(if input.is_empty() { said } else { format!("{said} (given {input:?})") }))
}
