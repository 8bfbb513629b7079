//! `fhirward check`

use std::{path::PathBuf, process::ExitCode};

use policy::{Problem, Severity};
use serde_json::json;

use super::{UNUSABLE, complain, say};
use crate::{Settings, problems};

#[derive(clap::Args)]
pub struct Arguments {
    /// Files and folders of manifests.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Settings file, for the trust domain, root namespace and workloads; its manifests are not read.
    #[arg(long)]
    config: Option<PathBuf>,
    /// How problems are printed.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// One line a problem.
    Text,
    /// One JSON object.
    Json,
}

impl Arguments {
    pub(super) fn run(self) -> ExitCode {
        let settings = match self.config.as_deref().map(Settings::load).transpose() {
            Ok(settings) => settings.map(|settings| settings.mesh).unwrap_or_default(),
            Err(problem) => {
                complain(&problems::line(&problem));
                return ExitCode::from(UNUSABLE);
            }
        };
        let outcome = mesh::check(&self.paths, &settings);
        match self.output {
            Output::Text => say(&text(&outcome)),
            Output::Json => say(&(json(&outcome).to_string() + "\n")),
        }
        let clean = outcome.problems.iter().all(|problem| problem.severity == Severity::Note);
        if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

fn text(outcome: &mesh::Checked) -> String {
    let mut out: String = outcome.problems.iter().map(|problem| problems::line(problem) + "\n").collect();
    let count = |severity| outcome.problems.iter().filter(|p: &&Problem| p.severity == severity).count();
    out += &format!(
        "{} objects, {} not used here; {} errors, {} warnings, {} notes\n",
        outcome.objects,
        outcome.unused.values().sum::<usize>(),
        count(Severity::Error),
        count(Severity::Warning),
        count(Severity::Note),
    );
    out
}

fn json(outcome: &mesh::Checked) -> serde_json::Value {
    json!({
        "objects": outcome.objects,
        "unused": outcome.unused,
        "problems": outcome.problems.iter().map(problems::json).collect::<Vec<_>>(),
    })
}
