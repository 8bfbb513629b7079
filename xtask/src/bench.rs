//! `cargo xtask bench`: builds ours as it is released, makes the peers available, runs them side by side.

use std::process::Command;

use crate::command::{self, Failure};
use crate::provision::{self, Part};

/// Where the figures of a whole run go.
const RESULTS: &str = "bench/results";

/// Runs the benchmark of the peers; `arguments` are handed to `fhirward-bench` as they are. Only a run of
/// everything leaves its figures in the tree.
///
/// # Errors
/// When a peer cannot be had, ours cannot be built, or a row has no figures.
pub fn bench(arguments: &[String]) -> Result<(), Failure> {
    let mut build = command::cargo();
    build.args(["build", "--release", "-p", "fhirward", "-p", "bench", "--bins"]);
    command::show(&mut build)?;
    let mut run = Command::new(command::root().join("target/release/fhirward-bench"));
    run.current_dir(command::root());
    let asks_for_help = arguments.iter().any(|word| word == "--help" || word == "-h");
    if !asks_for_help {
        provision::provision(Part::BENCH)?;
        // Only root can measure capture; without it the rows say that they are left out.
        if provision::is_root() {
            provision::provision(&[Part::Iptables])?;
        }
        run.arg("--envoy").arg(provision::ready(Part::Envoy)?.join("bin/envoy"));
        run.arg("--haproxy").arg(provision::ready(Part::Haproxy)?.join("bin/haproxy"));
        run.arg("--fhir-gateway").arg(provision::ready(Part::FhirGateway)?);
    }
    let is_part = |word: &String| {
        ["--only", "--peers", "--quick", "--results"].iter().any(|name| word.starts_with(name))
    };
    if !arguments.iter().any(is_part) {
        run.args(["--results", RESULTS]);
    }
    command::show(run.args(arguments))
}
