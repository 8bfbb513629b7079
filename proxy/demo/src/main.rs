//! `cargo xtask demo`: an identity provider, a FHIR store and the proxy between them, from the data
//! mesh's own manifests.

use std::{io::Write as _, process::ExitCode};

use clap::Parser;
use demo::scene::{Ports, Scene};
use tokio_util::sync::CancellationToken;

/// The data mesh on this machine: no root, no Java, nothing but loopback.
#[derive(Parser)]
#[command(name = "fhirward-demo")]
struct Arguments {
    /// Run the tutorial's table, print expected beside actual, and end: exit 0 when all is as expected.
    #[arg(long)]
    once: bool,
    /// Start the provider and the store alone, for a proxy started by hand.
    #[arg(long, conflicts_with = "once")]
    backends: bool,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    match runtime.block_on(run(&arguments)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => failed(&error),
    }
}

fn failed(error: &Failure) -> ExitCode {
    // Nothing is left to be done where standard error is gone too.
    let _ = writeln!(std::io::stderr(), "the demo cannot run: {error}");
    ExitCode::from(2)
}

async fn run(arguments: &Arguments) -> Result<bool, Failure> {
    let stop = CancellationToken::new();
    if arguments.once {
        let scene = Scene::open(Ports::Free, stop).await?;
        let good = scene.table(&mut std::io::stdout()).await?;
        scene.close().await;
        return Ok(good);
    }
    let scene = if arguments.backends {
        Scene::backends(Ports::Usual).await?
    } else {
        Scene::open(Ports::Usual, stop).await?
    };
    scene.introduce(&mut std::io::stdout())?;
    tokio::signal::ctrl_c().await?;
    scene.close().await;
    Ok(true)
}
