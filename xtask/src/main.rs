//! `cargo xtask`: what cargo alone cannot do.
//!
//! A table of contents; each verb lives in its own module of the library.

use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand};
use xtask::bench;
use xtask::bpf::{self, Architecture};
use xtask::command::{self, Failure, say};
use xtask::fuzz::{self, Plan};
use xtask::provision::{self, Part};
use xtask::suite;

#[derive(Parser)]
#[command(name = "xtask", about = "Demo, tests, benchmarks and lints of Fhirward")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// The embedded demo: identity provider, FHIR store and the proxy between them.
    Demo {
        /// Handed to the demo as they are, such as `--once` or `--capture`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Everything CI runs: format, lints, all tests, and the tests against real components.
    Test {
        /// Leave out the tests that need Keycloak, HAPI, Newman, Prometheus, Envoy, h2spec and SPIRE.
        #[arg(long)]
        no_real: bool,
    },
    /// Fhirward and its peers side by side. (The decision alone: `cargo bench -p bench`.)
    Bench {
        /// Such as --quick, --only read,fresh, --peers envoy,fhirward, --rounds 3, --seconds 1; --help tells all.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Builds the BPF object that is committed below ebpf-redirect. Needs Debian's packages, installed as root.
    Bpf {
        /// Change nothing; fail where the committed object is not what its sources give.
        #[arg(long)]
        check: bool,
        /// Whose registers the object is for.
        #[arg(long, value_enum, default_value = "x86_64")]
        target_arch: Architecture,
    },
    /// The fuzz targets of tests/fuzz, one after the other. Needs a nightly compiler.
    Fuzz {
        /// For how long, each.
        #[arg(long)]
        seconds: u32,
        /// Only this one.
        #[arg(long)]
        target: Option<String>,
        /// Take a small part of what was found over into the corpus in git.
        #[arg(long)]
        keep: bool,
    },
    /// Format, clippy, and cargo-deny where it is installed.
    Lint,
    /// Makes the real components available below target/real (or $FHIRWARD_CACHE).
    Provision {
        /// Which ones; all that tests need when none is named.
        #[arg(value_enum)]
        parts: Vec<Part>,
    },
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().verb {
        Verb::Demo { args } => demo(&args),
        Verb::Test { no_real } => suite::test(no_real),
        Verb::Bench { args } => bench::bench(&args),
        Verb::Bpf { check, target_arch } => bpf::bpf(target_arch, check),
        Verb::Fuzz { seconds, target, keep } => fuzz::fuzz(&Plan { seconds, target, keep }),
        Verb::Lint => suite::lint(),
        Verb::Provision { parts } => provision::provision(&parts),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say(&format!("xtask: {failure}"));
            ExitCode::FAILURE
        }
    }
}

fn demo(args: &[String]) -> Result<(), Failure> {
    // With `--capture` the demo starts the very `fhirward` that an operator would; it lies beside it.
    let mut build = command::cargo();
    build.args(["build", "--release", "-p", "fhirward", "-p", "demo", "--bins"]);
    command::show(&mut build)?;
    become_it(Command::new(command::root().join("target/release/fhirward-demo")).args(args))
}

/// Puts `command` in this process's place, so that signals and the exit code are its own.
fn become_it(command: &mut Command) -> Result<(), Failure> {
    use std::os::unix::process::CommandExt;
    let error = command.exec();
    Err(Failure(format!("the demo cannot be started: {error}")))
}
