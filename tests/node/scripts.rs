//! Running the client scripts of `tests/node/clients`.

use std::{path::PathBuf, process::Command, time::Duration};

use demo::pods::Pod;
use tests::{
    harness::repository,
    node::{Program, python},
};

/// A whole script: compilers may be slow.
pub const LIMIT: Duration = Duration::from_secs(180);

/// The path of a client script.
pub fn script(name: &str) -> PathBuf {
    repository().join("tests/node/clients").join(name)
}

/// A Python script in a pod.
pub fn python_in(pod: &Pod, name: &str) -> Command {
    let mut command = pod.command(python().unwrap());
    command.arg("-BS").arg(script(name));
    command
}

/// What went wrong of a script's checks; at least `checks` must have gone well.
pub fn failures(name: &str, command: Command, checks: usize) -> Vec<String> {
    let (status, said) = Program::start(name, command).unwrap().finish(LIMIT).unwrap();
    let well = said.lines().filter(|line| line.starts_with("ok ")).count();
    let mut failed: Vec<String> = said
        .lines()
        .filter(|line| line.starts_with("FAILED"))
        .map(|line| format!("{name}: {line}"))
        .collect();
    if !status.success() || (well + failed.len()) < checks {
        failed.push(format!("{name}: ended with {status}, {well} of {checks} checks: {said}"));
    }
    failed
}
