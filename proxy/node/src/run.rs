//! The wiring of `fhirward run` and `fhirward node`: settings to sources, authenticator, engine,
//! listeners, captured pods, admin server.

use std::{net::SocketAddr, sync::Arc};

use dataplane::{
    DrainReport, Engine, EngineSettings, Proxy,
    accept::{Bound, Entry, ListenError, Listener},
    secure::TlsFiles,
};
use identity::{Authenticator, Clock, SetupError};
use mesh::{Snapshot, files};
use observe::Recorder;
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    Settings,
    admin::{self, Told, Turn},
    capture, problems,
    settings::{ListenerRole, ListenerSettings},
    workloads::Workloads,
};

/// A running proxy.
pub struct Node {
    addresses: Arc<Vec<(String, SocketAddr)>>,
    admin: SocketAddr,
    proxy: JoinHandle<DrainReport>,
    /// Ends what must outlive the drain: admin server, key refresh, manifest watch.
    last: CancellationToken,
}

/// Why the proxy cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener has no role that makes sense; settings that were checked never do this.
    #[error("listener {0}: {1}")]
    Role(String, String),
    /// An address is taken, a certificate cannot be read.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The admin address is taken.
    #[error("admin address {0}: {1}")]
    Admin(SocketAddr, std::io::Error),
    /// The identity settings contradict each other.
    #[error(transparent)]
    Identity(#[from] SetupError),
    /// The workloads' certificates: an authority or roots that cannot be used.
    #[error("identity.certificates: {0}")]
    Certificates(#[from] identity::spiffe::SupplyError),
    /// The access log cannot be opened.
    #[error(transparent)]
    AccessLog(#[from] observe::access_log::OpenError),
}

impl Node {
    /// Starts everything; when this returns, every listener is bound and the manifests have been
    /// read once (which does not say that they were good).
    ///
    /// # Errors
    /// [`StartError`]: nothing is left running.
    pub async fn start(settings: Settings, stop: CancellationToken) -> Result<Self, StartError> {
        let last = CancellationToken::new();
        let guard = last.clone().drop_guard();
        let bound = bind(&settings.listeners)?;
        let turn = Turn::bind(settings.admin.address, settings.capture.is_some())
            .await
            .map_err(|error| StartError::Admin(settings.admin.address, error))?;
        let admin = turn.address();
        let addresses: Arc<Vec<_>> =
            Arc::new(bound.iter().map(|b| (b.name().to_owned(), b.local_addr())).collect());
        let certificates = bound.iter().filter_map(|b| Some((b.name().to_owned(), Arc::clone(b.tls()?))));
        let certificates = Arc::new(certificates.collect());
        let recorder = Arc::new(Recorder::new(&settings.observe)?);
        let supply = Workloads::supply(&settings, &last)?;
        let roles = Workloads::roles(&settings.listeners);
        let authenticator = Authenticator::new(settings.identity, Clock::System, last.clone())?;
        let engine_settings = EngineSettings {
            strict_target: settings.mesh.strict_target,
            trusted_proxies: settings.mesh.num_trusted_proxies,
            keep_reasons: recorder.wants_reasons(),
        };
        let source = files::Source::start(settings.mesh, last.clone());
        follow(&source.snapshots, Arc::clone(&authenticator), last.clone());
        tell_problems(source.status.clone(), last.clone());
        let (bound, workloads) = Workloads::attach(supply, roles, bound, (&source.snapshots, &last));
        let limits = Arc::new(settings.limits);
        let engine = Engine::new(
            source.snapshots.clone(),
            Arc::clone(&authenticator),
            Arc::clone(&limits),
            engine_settings,
        );
        let (captured, report) = settings
            .capture
            .as_ref()
            .map(|settings| capture::start(settings, stop.clone(), last.clone()))
            .unzip();
        let captured = captured.map(|captured| workloads.hand_to(captured));
        let told = Told {
            snapshots: source.snapshots,
            status: source.status,
            authenticator,
            recorder: Arc::clone(&recorder),
            listeners: Arc::clone(&addresses),
            certificates,
            capture: report,
            workloads,
            stop: stop.clone(),
        };
        tokio::spawn(admin::serve(turn, told, last.clone()));
        let proxy = Proxy::new(Arc::new(engine), Arc::new(Tell(recorder)), limits);
        let proxy = tokio::spawn(proxy.run(bound, captured, stop));
        for (name, address) in addresses.iter() {
            tracing::info!(listener = name, %address, "listening");
        }
        tracing::info!(address = %admin, "admin server listening");
        guard.disarm();
        Ok(Self { addresses, admin, proxy, last })
    }

    /// Where a listener really listens (its settings may have said port 0).
    #[must_use]
    pub fn address(&self, listener: &str) -> Option<SocketAddr> {
        self.addresses.iter().find(|(name, _)| name == listener).map(|(_, address)| *address)
    }

    /// Where the admin server listens.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Waits for the end of the drain that the stop signal began.
    pub async fn finished(self) {
        match self.proxy.await {
            Ok(report) => tracing::info!(connections = report.connections, cut = report.cut, "drained"),
            Err(error) => tracing::error!(%error, "the proxy ended by a bug"),
        }
        self.last.cancel();
    }
}

/// Hands each story to the tellers.
struct Tell(Arc<Recorder>);

impl dataplane::record::Recorder for Tell {
    fn record(&self, record: observe::Record) {
        self.0.record(record);
    }

    fn opened(&self, record: &observe::Record) {
        self.0.opened(record);
    }

    fn moved(&self, record: &observe::Record, bytes: (u64, u64)) {
        self.0.moved(record, bytes);
    }
}

fn bind(listeners: &[ListenerSettings]) -> Result<Vec<Bound>, StartError> {
    let bind = |settings: &ListenerSettings| {
        let role = settings.role().map_err(|message| StartError::Role(settings.name.clone(), message))?;
        let listener = Listener {
            name: settings.name.clone(),
            address: settings.address,
            entry: match role {
                ListenerRole::Workload(name, port) => Entry::Workload { name, port },
                ListenerRole::Gateway(key) => Entry::Gateway(key),
            },
            tls: settings.tls.as_ref().and_then(|tls| {
                let (certificate, key) = (tls.certificate.clone()?, tls.key.clone()?);
                Some(TlsFiles { certificate, key })
            }),
        };
        Ok(listener.bind()?)
    };
    listeners.iter().map(bind).collect()
}

/// Tells the authenticator of each new snapshot's rules: the first at once, so that keys are on
/// their way before the first token is.
fn follow(
    snapshots: &watch::Receiver<Option<Arc<Snapshot>>>,
    authenticator: Arc<Authenticator>,
    stop: CancellationToken,
) {
    let mut snapshots = snapshots.clone();
    tokio::spawn(async move {
        loop {
            let snapshot = snapshots.borrow_and_update().clone();
            if let Some(snapshot) = snapshot {
                authenticator.follow(snapshot.jwt_rules());
            }
            tokio::select! {
                changed = snapshots.changed() => if changed.is_err() { return },
                () = stop.cancelled() => return,
            }
        }
    });
}

/// Writes what is wrong with the manifests to the log, each time it changes.
fn tell_problems(mut status: watch::Receiver<files::SourceStatus>, stop: CancellationToken) {
    tokio::spawn(async move {
        let mut told = Vec::new();
        loop {
            // Warnings may be ten thousand: what is not told is not copied on a worker's time.
            let (problems, version) = {
                let now = status.borrow_and_update();
                (now.problems.clone(), now.version)
            };
            if problems != told {
                for problem in &problems {
                    tracing::error!("{}; the last good policy holds", problems::line(problem));
                }
                if problems.is_empty() {
                    tracing::info!(snapshot = version, "the manifests are good again");
                }
                told = problems;
            }
            tokio::select! {
                changed = status.changed() => if changed.is_err() { return },
                () = stop.cancelled() => return,
            }
        }
    });
}
