//! `fhirward agent`

use std::{path::PathBuf, process::ExitCode};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{UNUSABLE, complain, run::start_log, say};
use crate::{Settings, agent, problems};

#[derive(clap::Args)]
pub struct Arguments {
    /// Settings file: the proxy's own.
    #[arg(long)]
    config: PathBuf,
    /// Un-enrol every pod, remove all pins and end. No agent may be running; connections of the pods go
    /// past the proxy from then on.
    #[arg(long)]
    release: bool,
}

impl Arguments {
    pub(super) fn run(self) -> ExitCode {
        let settings = match Settings::load(&self.config) {
            Ok(settings) => settings,
            Err(problem) => return unusable(&problems::line(&problem)),
        };
        let Some(capture) = settings.capture.clone() else {
            return unusable(&format!("{}: {}", self.config.display(), agent::AgentError::NoCapture));
        };
        start_log();
        if self.release {
            return match agent::release(&capture) {
                Ok(pods) => {
                    say(&format!("{pods} pods un-enrolled, nothing is pinned any more\n"));
                    ExitCode::SUCCESS
                }
                Err(error) => unusable(&error.to_string()),
            };
        }
        // One thread talks, another works; there is nothing for more.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let ended = runtime.map(|runtime| runtime.block_on(serve(settings)));
        match ended {
            Ok(Ok(())) => ExitCode::SUCCESS,
            Ok(Err(error)) => unusable(&error.to_string()),
            Err(error) => unusable(&format!("the runtime cannot be started: {error}")),
        }
    }
}

async fn serve(settings: Settings) -> Result<(), agent::AgentError> {
    let stop = CancellationToken::new();
    let (terminate, interrupt) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (mut terminate, mut interrupt) = match (terminate, interrupt) {
        (Ok(terminate), Ok(interrupt)) => (terminate, interrupt),
        (Err(error), _) | (_, Err(error)) => {
            return Err(agent::AgentError::Steward(format!("signals: {error}")));
        }
    };
    let told = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("the agent ends; capture stays in place");
        told.cancel();
    });
    agent::run(settings, stop).await
}

fn unusable(message: &str) -> ExitCode {
    complain(message);
    ExitCode::from(UNUSABLE)
}
