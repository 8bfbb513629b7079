//! `cargo xtask test` and `cargo xtask lint`: named steps, each timed, with a summary at the end.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::bpf::{self, Architecture};
use crate::command::{self, Failure, say};
use crate::provision;

/// The features of the crate `tests` behind which the tests against real components and those of
/// capture stand. Always both: what is built for the one is then not built once more for the other.
const ALL: &str = "tests/real,tests/node";

struct Steps {
    done: Vec<(&'static str, Duration, bool)>,
}

impl Steps {
    const fn new() -> Self {
        Self { done: Vec::new() }
    }

    /// Runs one step and notes how long it took. The first step that fails ends the run.
    fn step(
        &mut self,
        name: &'static str,
        work: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        say(&format!("==> {name}"));
        let started = Instant::now();
        let outcome = work();
        let took = started.elapsed();
        self.done.push((name, took, outcome.is_ok()));
        say(&format!("<== {name}: {:.1} s", took.as_secs_f64()));
        outcome.map_err(|failure| Failure(format!("{name}: {failure}")))
    }

    fn summary(&self) {
        say("");
        for (name, took, passed) in &self.done {
            let verdict = if *passed { "ok" } else { "FAILED" };
            say(&format!("{:>8.1} s  {verdict:<6}  {name}", took.as_secs_f64()));
        }
    }
}

/// Everything CI runs.
///
/// # Errors
/// The first step that fails. A real component that cannot be had is a failure, never a skip;
/// `no_real` leaves them out, and is refused where `CI=true`.
pub fn test(no_real: bool) -> Result<(), Failure> {
    let (ci, root) = (std::env::var("CI").is_ok_and(|value| value == "true"), provision::is_root());
    if no_real && ci {
        return Err(Failure("--no-real is refused where CI=true: CI runs the real parts".to_owned()));
    }
    if !root && ci {
        return Err(Failure("CI=true needs root: CI runs the tests of capture".to_owned()));
    }
    let mut steps = Steps::new();
    let outcome = test_steps(&mut steps, no_real, root);
    steps.summary();
    if no_real {
        say(
            "LEFT OUT (--no-real): every test against Keycloak, HAPI, Newman, Prometheus, Envoy, h2spec and SPIRE",
        );
    }
    if !root {
        say("LEFT OUT (not root): the tests of capture, those of the loader, and the demo with --capture");
    }
    outcome
}

fn test_steps(steps: &mut Steps, no_real: bool, root: bool) -> Result<(), Failure> {
    if !no_real {
        steps.step("provision real components", || provision::provision(&[]))?;
        steps.step("BPF object, rebuilt and compared", || bpf::bpf(Architecture::X86_64, true))?;
    }
    if root {
        steps.step("provision what pods run", provision::pods)?;
    }
    steps.step("format", format)?;
    steps.step("clippy", clippy)?;
    // The whole-proxy tests run the binary that lies beside them.
    steps.step("build the binaries", || {
        command::show(command::cargo().args(["build", "--workspace", "--bins", "--features", ALL]))
    })?;
    steps.step("tests", || command::show(command::cargo().args(["test", "--workspace"])))?;
    steps.step("demo, once", || command::show(Command::new(debug_binary("fhirward-demo")).arg("--once")))?;
    if root {
        steps.step("tests of the loader, as root", || command::show(&mut loader_tests()))?;
        steps.step("tests of capture, as root", || command::show(&mut capture_tests()))?;
        steps.step("demo with capture, once", || {
            let words = ["--scenario", "data-mesh", "--capture", "--once"];
            command::show(Command::new(debug_binary("fhirward-demo")).args(words))
        })?;
    }
    if !no_real {
        steps.step("tests against real components", || command::show(&mut real_tests()))?;
    }
    Ok(())
}

/// One at a time: each has agent, proxy and pods of its own, and the machine's two cores must do.
fn capture_tests() -> Command {
    let mut cargo = command::cargo();
    cargo.args(["test", "--workspace", "--features", ALL, "--test", "node", "--", "--test-threads=1"]);
    cargo
}

fn loader_tests() -> Command {
    let mut cargo = command::cargo();
    cargo.args(["test", "-p", "loader", "--features", "root", "--", "--test-threads=1"]);
    cargo
}

fn debug_binary(name: &str) -> PathBuf {
    command::root().join("target/debug").join(name)
}

/// One test at a time: each may start several servers, and two cores must do. The whole workspace
/// is named so that its dependencies are not built once more with other features.
fn real_tests() -> Command {
    let mut cargo = command::cargo();
    cargo.args(["test", "--workspace", "--features", ALL]);
    cargo.args([
        "--test",
        "real_parts",
        "--test",
        "real_mesh",
        "--test",
        "real_mtls",
        "--test",
        "real_hbone",
        "--test",
        "real_spire",
        "--test",
        "h2spec",
        "--test",
        "oracle",
        "--",
        "--test-threads=1",
    ]);
    cargo
}

/// Format, clippy, and cargo-deny where it is installed.
///
/// # Errors
/// The first check that fails.
pub fn lint() -> Result<(), Failure> {
    let mut steps = Steps::new();
    let outcome = lint_steps(&mut steps);
    steps.summary();
    outcome
}

fn lint_steps(steps: &mut Steps) -> Result<(), Failure> {
    steps.step("format", format)?;
    steps.step("clippy", clippy)?;
    if command::find("cargo-deny").is_none() {
        say("NOT RUN: cargo-deny is not installed (cargo install cargo-deny)");
        return Ok(());
    }
    steps.step("cargo-deny", || command::show(command::cargo().args(["deny", "check"])))
}

fn format() -> Result<(), Failure> {
    command::show(command::cargo().args(["fmt", "--all", "--", "--check"]))?;
    // A workspace of its own.
    let programs = "ebpf-redirect/programs/Cargo.toml";
    command::show(command::cargo().args(["fmt", "--manifest-path", programs, "--", "--check"]))
}

fn clippy() -> Result<(), Failure> {
    let mut cargo = command::cargo();
    cargo.args(["clippy", "--workspace", "--all-targets", "--features", ALL]);
    command::show(cargo.args(["--", "-D", "warnings"]))
}
