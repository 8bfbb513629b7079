//! `fhirward agent`: the privileged process. It enrols pods (BPF programs, pins) and makes sockets
//! inside them for the proxy; it parses no traffic.
//!
//! | module | what it is |
//! |---|---|
//! | [`protocol`] | what agent and proxy say to each other |
//! | `sources` | which pods are there |
//! | `roster` | which of them the manifests want enrolled |
//! | `plan` | what to do about the difference |
//! | `steward` | does it, and answers requests: one thread owns all state |
//! | `hands` | its work in the kernel, by the crate `loader` |
//! | `fleet` | which proxy serves which pod, and which is taken over |
//! | `guests` | connections at the socket |
//! | `pages` | metrics |
//!
//! All that must outlive the process is pinned in the kernel: it may be killed at any instant.

mod fleet;
mod guests;
mod hands;
mod pages;
mod plan;
pub mod protocol;
mod roster;
mod sources;
mod steward;

use std::{
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, mpsc},
    time::Duration,
};

use loader::{Kernel, LoadError};
use mesh::files;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

use crate::{Settings, problems, settings::CaptureSettings};
use hands::KernelHands;
use protocol::{Seat, SeatError};
use sources::{Discovered, Listed, Source};
use steward::{Feeds, Order, Steward, Tools};

/// How long a predecessor is waited for.
const PREDECESSOR: Duration = Duration::from_secs(10);
/// How much longer than the proxy's drain a pod's connections are waited for.
const AFTER_DRAIN: Duration = Duration::from_secs(2);
/// Between two tries of that.
const TRY: Duration = Duration::from_millis(100);

/// Why the agent cannot start, or ends.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// There is nothing to do.
    #[error("the settings have no `capture`")]
    NoCapture,
    /// The kernel's side.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The socket.
    #[error(transparent)]
    Seat(#[from] SeatError),
    /// Cgroup v2.
    #[error("cgroup v2: {0}")]
    Cgroup(std::io::Error),
    /// The pins cannot be read, or what is pinned not removed.
    #[error("{0}")]
    Pins(String),
    /// A thread cannot be started, or has ended by a bug.
    #[error("the steward: {0}")]
    Steward(String),
}

/// Runs the agent until told to stop; capture stays in place.
///
/// # Errors
/// [`AgentError`]: what is pinned stays as it is.
pub async fn run(settings: Settings, stop: CancellationToken) -> Result<(), AgentError> {
    let capture = settings.capture.ok_or(AgentError::NoCapture)?;
    raise_descriptor_limit();
    let kernel = open_kernel(&capture, &stop).await?;
    let source = files::Source::start(settings.mesh, stop.clone());
    let feeds =
        Feeds { pods: watch::channel(None).0, node: watch::channel(Arc::new(Vec::<IpAddr>::new())).0 };
    let own_cgroup = loader::own_cgroup().map_err(AgentError::Cgroup)?;
    let steward = Steward::new(Tools {
        hands: Box::new(KernelHands { kernel }),
        sources: pod_sources(&capture)?,
        snapshots: source.snapshots.clone(),
        manifests: source.status.clone(),
        feeds: feeds.clone(),
        own_cgroup: Some(own_cgroup),
        pins: capture.pin_path.clone(),
        end_old_connections: capture.end_old_connections,
        transparent: capture.transparent_source,
        drain: Duration::from_millis(settings.limits.drain_timeout_ms).saturating_add(AFTER_DRAIN),
    });
    let steward = steward.map_err(AgentError::Pins)?;
    let seat = Seat::open(&capture.socket, capture.user.uid, capture.user.gid)?;
    tracing::info!(socket = %capture.socket.display(), pins = %capture.pin_path.display(), "the agent listens");
    let (orders, received) = mpsc::channel();
    let (ended, end) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("steward".to_owned());
    let thread = thread.spawn(move || {
        steward.run(&received);
        // Nobody waits where the agent is ending anyway.
        let _ = ended.send(());
    });
    let thread = thread.map_err(|error| AgentError::Steward(error.to_string()))?;
    tell_manifests(&source, orders.clone(), stop.clone());
    serve_pages(&capture, orders.clone(), stop.clone()).await;
    tokio::select! {
        () = guests::receive(seat, orders.clone(), feeds, stop.clone()) => {}
        // By a bug: whoever started us starts us again.
        _ = end => {}
    }
    // Where it has ended already there is nothing to stop.
    let _ = orders.send(Order::Stop);
    let joined = tokio::task::spawn_blocking(move || thread.join()).await;
    match joined {
        Ok(Ok(())) if stop.is_cancelled() => Ok(()),
        _ => Err(AgentError::Steward("ended by a bug".to_owned())),
    }
}

/// Un-enrols every pod and removes all pins and maps.
///
/// # Errors
/// [`AgentError`]: another agent runs, or something could not be removed; it may be tried again.
pub fn release(capture: &CaptureSettings) -> Result<usize, AgentError> {
    let kernel = Kernel::open(&loader_settings(capture)?)?;
    let pods = kernel.adopted()?;
    kernel.release()?;
    for pod in &pods {
        tracing::info!(slot = pod.slot.get(), workload = pod.name, "un-enrolled");
    }
    Ok(pods.len())
}

fn loader_settings(capture: &CaptureSettings) -> Result<loader::Settings, AgentError> {
    let own =
        loader::own_cgroup().and_then(|folder| loader::cgroup_id(&folder)).map_err(AgentError::Cgroup)?;
    Ok(loader::Settings {
        bpffs: capture.pin_path.clone(),
        allowed_cgroups: vec![own],
        origins: abi::MAX_ORIGINS,
    })
}

/// Opens the kernel's side; an agent that is still there, as in an upgrade, is waited for.
async fn open_kernel(capture: &CaptureSettings, stop: &CancellationToken) -> Result<Kernel, AgentError> {
    let settings = loader_settings(capture)?;
    let until = tokio::time::Instant::now() + PREDECESSOR;
    let mut told = false;
    loop {
        match Kernel::open(&settings) {
            Err(error @ LoadError::Taken { .. }) => {
                if stop.is_cancelled() || tokio::time::Instant::now() >= until {
                    return Err(error.into());
                }
                if !told {
                    tracing::info!("waiting for its end: {error}");
                    told = true;
                }
                tokio::time::sleep(TRY).await;
            }
            opened => return Ok(opened?),
        }
    }
}

fn pod_sources(capture: &CaptureSettings) -> Result<Vec<Box<dyn Source>>, AgentError> {
    let mut sources: Vec<Box<dyn Source>> = Vec::new();
    if !capture.pods.is_empty() {
        sources.push(Box::new(Listed::new(&capture.pods)));
    }
    if capture.discover {
        let root: PathBuf = match &capture.cgroup_root {
            Some(root) => root.clone(),
            None => loader::cgroup_root().map_err(AgentError::Cgroup)?,
        };
        sources.push(Box::new(Discovered::new(root)));
    }
    Ok(sources)
}

/// Wakes the steward when manifests change, and says what is wrong with them.
fn tell_manifests(source: &files::FilesSource, orders: mpsc::Sender<Order>, stop: CancellationToken) {
    let (mut snapshots, mut status) = (source.snapshots.clone(), source.status.clone());
    status.mark_changed();
    tokio::spawn(async move {
        let mut told = Vec::new();
        loop {
            tokio::select! {
                changed = snapshots.changed() => {
                    if changed.is_err() || orders.send(Order::Look).is_err() {
                        return;
                    }
                    snapshots.mark_unchanged();
                }
                changed = status.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let problems = status.borrow_and_update().problems.clone();
                    if problems != told {
                        for problem in &problems {
                            tracing::error!("{}; nobody new is enrolled, who is stays so", problems::line(problem));
                        }
                        told = problems;
                    }
                }
                () = stop.cancelled() => return,
            }
        }
    });
}

/// The pages are a convenience: where their address is taken, pods are enrolled all the same.
async fn serve_pages(capture: &CaptureSettings, orders: mpsc::Sender<Order>, stop: CancellationToken) {
    match TcpListener::bind(capture.agent_address).await {
        Ok(listener) => {
            let address = listener.local_addr().unwrap_or(capture.agent_address);
            tracing::info!(%address, "metrics listening");
            tokio::spawn(pages::serve(listener, orders, stop));
        }
        Err(error) => tracing::error!(address = %capture.agent_address, %error, "no metrics"),
    }
}

/// A thousand pods' listeners on their way take more descriptors than the usual 1024.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
}
