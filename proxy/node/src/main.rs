//! The `fhirward` command.

use std::process::ExitCode;

use clap::Parser as _;
use fhirward::commands::Command;

/// Sidecar-less authorization for FHIR servers: the manifests you have, one proxy per node.
#[derive(clap::Parser)]
#[command(name = "fhirward", version, about, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    Arguments::parse().command.run()
}
