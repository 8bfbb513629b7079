//! Our proxy behind iptables, for the capture benchmark. Runs as root, in the node's namespace.

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use bench::capture::redirect::{PodWord, Redirect};
use clap::Parser;
use dataplane::capture::{Capture, CaptureSettings, Change, Pod, PodId};
use dataplane::{Engine, EngineSettings, Proxy};
use fhirward::Settings;
use identity::{Authenticator, Clock};
use mesh::files::Source;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Our proxy behind iptables.
#[derive(Parser)]
struct Arguments {
    /// Settings file.
    #[arg(long)]
    config: PathBuf,
    /// The pods.
    pods: Vec<PodWord>,
}

type Failure = Box<dyn Error + Send + Sync>;

/// What is recorded nowhere, as the access log of ours is off too.
struct Tell(Arc<observe::Recorder>);

impl dataplane::record::Recorder for Tell {
    fn record(&self, record: observe::Record) {
        self.0.record(record);
    }
}

fn main() -> ExitCode {
    let run = || -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(serve(Arguments::parse()))
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "redirect-proxy: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(arguments: Arguments) -> Result<(), Failure> {
    let settings = Settings::load(&arguments.config).map_err(|problem| fhirward::problems::line(&problem))?;
    let stop = CancellationToken::new();
    let recorder = Arc::new(observe::Recorder::new(&settings.observe)?);
    let authenticator = Authenticator::new(settings.identity, Clock::System, stop.clone())?;
    let engine_settings = EngineSettings {
        strict_target: settings.mesh.strict_target,
        trusted_proxies: settings.mesh.num_trusted_proxies,
        keep_reasons: recorder.wants_reasons(),
    };
    let source = Source::start(settings.mesh, stop.clone());
    let mut snapshots = source.snapshots.clone();
    let snapshot = snapshots.wait_for(Option::is_some).await?.clone();
    authenticator.follow(snapshot.ok_or("no snapshot")?.jwt_rules());
    let limits = Arc::new(settings.limits);
    let engine = Engine::new(source.snapshots, authenticator, Arc::clone(&limits), engine_settings);
    let (tell, changes) = mpsc::channel(arguments.pods.len().max(1));
    let mut plumbing = Redirect::new()?;
    for (slot, word) in (0..).zip(&arguments.pods) {
        let id = PodId { slot, generation: 0 };
        let outbound = vec![plumbing.take(id, &word.netns)?];
        let pod = Pod {
            id,
            name: word.name.parse()?,
            addresses: vec![word.address],
            probes: Vec::new(),
            transparent: false,
        };
        tell.send(Change::Take { pod: Arc::new(pod), inbound: Vec::new(), outbound }).await?;
    }
    let capture = Capture {
        plumbing: Arc::new(plumbing),
        changes,
        settings: CaptureSettings::default(),
        certificates: None,
    };
    let proxy = Proxy::new(Arc::new(engine), Arc::new(Tell(recorder)), limits);
    proxy.run(Vec::new(), Some(capture), stop).await;
    Ok(())
}
