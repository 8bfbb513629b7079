//! `fhirward test`

use std::{path::PathBuf, process::ExitCode};

use super::{UNUSABLE, complain, say};
use crate::{policy_test, problems};

#[derive(clap::Args)]
pub struct Arguments {
    /// PolicyTest files, or folders of them (searched through).
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// How the outcome is printed.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Output {
    /// One line a case; failures in full.
    Text,
    /// One JSON object.
    Json,
    /// JUnit XML.
    Junit,
}

impl Arguments {
    pub(super) fn run(self) -> ExitCode {
        let report = match policy_test::run(&self.paths) {
            Ok(report) => report,
            Err(found) => {
                for problem in &found {
                    complain(&problems::line(problem));
                }
                return ExitCode::from(UNUSABLE);
            }
        };
        match self.output {
            Output::Text => say(&report.text()),
            Output::Json => say(&(report.json() + "\n")),
            Output::Junit => say(&report.junit()),
        }
        if report.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
