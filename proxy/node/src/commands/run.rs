//! `fhirward run` and `fhirward node`: the proxy.

use std::{path::PathBuf, process::ExitCode};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use super::{UNUSABLE, complain};
use crate::{Node, Settings, capture::confine::confine, problems};

#[derive(clap::Args)]
pub struct Arguments {
    /// Settings file.
    #[arg(long)]
    config: PathBuf,
}

impl Arguments {
    /// Where the settings capture pods, `run` is what `node` is: whoever wrote them expects the pods
    /// to be served, and by a proxy that has no rights.
    pub(super) fn run(self) -> ExitCode {
        self.start(|_| Ok(()))
    }

    /// As `run`, where the settings hold what `fit` asks for.
    pub(super) fn start(self, fit: impl FnOnce(&Settings) -> Result<(), String>) -> ExitCode {
        let settings = match Settings::load(&self.config) {
            Ok(settings) => settings,
            Err(problem) => {
                complain(&problems::line(&problem));
                return ExitCode::from(UNUSABLE);
            }
        };
        if let Err(message) = fit(&settings) {
            complain(&format!("{}: {message}", self.config.display()));
            return ExitCode::from(UNUSABLE);
        }
        start_log();
        // Before the first thread, and before anything that a stranger sends is read.
        if let Some(capture) = &settings.capture
            && let Err(error) = confine(capture.user)
        {
            complain(&error.to_string());
            return ExitCode::from(UNUSABLE);
        }
        // One worker needs no stealing and no waking of other workers.
        let mut builder = if settings.admin.threads == 1 {
            tokio::runtime::Builder::new_current_thread()
        } else {
            tokio::runtime::Builder::new_multi_thread()
        };
        if settings.admin.threads > 1 {
            builder.worker_threads(settings.admin.threads);
        }
        match builder.enable_all().build() {
            Ok(runtime) => runtime.block_on(serve(settings)),
            Err(error) => {
                complain(&format!("the runtime cannot be started: {error}"));
                ExitCode::from(UNUSABLE)
            }
        }
    }
}

/// The process's own log, as JSON on standard error; the access log has its own place.
pub(super) fn start_log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // A second subscriber (tests in one process) is no reason to stop.
    // A standard error that nobody reads any more is no reason either: complaining about it there would
    // panic, in whatever was about to log.
    let log = tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(std::io::stderr);
    let _ = log.log_internal_errors(false).try_init();
}

async fn serve(settings: Settings) -> ExitCode {
    let stop = CancellationToken::new();
    if let Err(error) = stop_on_signals(&stop) {
        complain(&format!("signals cannot be listened to: {error}"));
        return ExitCode::from(UNUSABLE);
    }
    match Node::start(settings, stop).await {
        Ok(node) => {
            node.finished().await;
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&error.to_string());
            ExitCode::from(UNUSABLE)
        }
    }
}

/// SIGTERM and SIGINT drain; a second one ends the process at once.
fn stop_on_signals(stop: &CancellationToken) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = stop.clone();
    tokio::spawn(async move {
        for first in [true, false] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if first {
                tracing::info!("draining");
                stop.cancel();
            } else {
                std::process::exit(1);
            }
        }
    });
    Ok(())
}
