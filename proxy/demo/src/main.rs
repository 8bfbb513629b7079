//! `cargo xtask demo`: an identity provider, a FHIR store and the proxy between them, from the data
//! mesh's own manifests.

use std::{io::Write as _, net::SocketAddr, process::ExitCode};

use clap::Parser;
use demo::{
    fhir_store, idp,
    scene::{self, Ports, Scene, Stage},
};
use tokio_util::sync::CancellationToken;

/// The data mesh on this machine: no root, no Java, nothing but loopback.
#[derive(Parser)]
#[command(name = "fhirward-demo")]
struct Arguments {
    /// What is played.
    #[arg(long, value_enum, default_value_t = Scenario::DataMesh)]
    scenario: Scenario,
    /// Run the tutorial's table, print expected beside actual, and end: exit 0 when all is as expected.
    #[arg(long)]
    once: bool,
    /// With pods as network namespaces, whose traffic eBPF brings to the proxy. Needs root.
    #[arg(long)]
    capture: bool,
    /// Start the provider and the store alone, for a proxy started by hand.
    #[arg(long, conflicts_with_all = ["once", "capture"])]
    backends: bool,
    /// The process of one pod: the store.
    #[arg(long, hide = true, exclusive = true, value_name = "ADDRESS")]
    store_at: Option<SocketAddr>,
    /// The process of one pod: the provider.
    #[arg(long, hide = true, exclusive = true, value_name = "ADDRESS")]
    idp_at: Option<SocketAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Scenario {
    /// The tutorial's FHIR server behind Keycloak, with its own manifests.
    DataMesh,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    match runtime.block_on(run(arguments)) {
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

async fn run(arguments: Arguments) -> Result<bool, Failure> {
    let Scenario::DataMesh = arguments.scenario;
    if let Some(addr) = arguments.store_at {
        return store(addr).await;
    }
    if let Some(addr) = arguments.idp_at {
        return provider(addr).await;
    }
    if arguments.capture {
        return captured(arguments.once).await;
    }
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

/// The scene with capture; it starts and ends processes, so it has a thread of its own.
async fn captured(once: bool) -> Result<bool, Failure> {
    let stop = CancellationToken::new();
    let told = stop.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            told.cancel();
        }
    });
    let runtime = tokio::runtime::Handle::current();
    let play = move || {
        let mut stage = Stage::open(stop.clone())?;
        if once {
            return stage.tell(&mut std::io::stdout());
        }
        stage.introduce(&mut std::io::stdout())?;
        runtime.block_on(stop.cancelled());
        Ok(true)
    };
    tokio::task::spawn_blocking(play).await?
}

async fn store(addr: SocketAddr) -> Result<bool, Failure> {
    let store = fhir_store::start(fhir_store::Settings { addr, ..fhir_store::Settings::default() }).await?;
    ended().await?;
    store.stop().await;
    Ok(true)
}

async fn provider(addr: SocketAddr) -> Result<bool, Failure> {
    let frontend_url = Some(scene::ISSUER_BASE.to_owned());
    let settings = idp::Settings { http: Some(addr), frontend_url, ..idp::Settings::default() };
    let provider = idp::start(settings).await?;
    ended().await?;
    provider.stop().await;
    Ok(true)
}

async fn ended() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    signal(SignalKind::terminate())?.recv().await;
    Ok(())
}
