//! A FHIR server in memory, R4 and R5, shaped after HAPI's answers.
//!
//! It can: read, vread, history (instance, type, system), create, conditional create, update,
//! create by update, delete, search by GET and by POST `_search`, batch and transaction,
//! `metadata`, and `GET /actuator/health`. JSON only. It cannot: patch, conditional update and
//! delete, chained search, `_include`, terminology, validation against profiles.
//!
//! Source: HL7 FHIR R4 and R5, "RESTful API" (http.html) and "Search" (search.html).

mod bundle;
mod capability;
mod check;
mod dataset;
mod http_face;
mod interact;
mod matching;
mod problem;
mod recorded;
mod search;
mod types;

#[cfg(test)]
mod tests;

pub use recorded::RecordedRequest;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;

use crate::Error;
use crate::faults::{Answer, Knobs};
use crate::serve::{self, Server};
use dataset::{Dataset, Limits};
use recorded::Recorder;

/// A release of FHIR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FhirVersion {
    /// 4.0.1.
    R4,
    /// 5.0.0.
    R5,
}

impl FhirVersion {
    /// As in `CapabilityStatement.fhirVersion`.
    pub fn number(self) -> &'static str {
        match self {
            Self::R4 => "4.0.1",
            Self::R5 => "5.0.0",
        }
    }
}

/// A base path and the release served there. Mounts of one release share their resources.
#[derive(Clone, Debug)]
pub struct Mount {
    /// The base path: `/fhir`, or `/` for the root.
    pub path: String,
    /// The release.
    pub version: FhirVersion,
}

/// The store's settings; every limit answers with an OperationOutcome.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to listen (loopback only); port 0 takes a free one.
    pub addr: SocketAddr,
    /// The base paths; the longest that fits a request wins.
    pub mounts: Vec<Mount>,
    /// The largest request body in bytes (413 beyond).
    pub max_body: usize,
    /// The most resources of one release, deleted ones included (507 beyond).
    pub max_resources: usize,
    /// The versions kept of one resource; older ones are forgotten.
    pub max_versions: usize,
    /// The most entries of a batch or transaction (413 beyond).
    pub max_entries: usize,
    /// How many requests are remembered for [`FhirStore::recorded`]; older ones are forgotten.
    pub max_recorded: usize,
}

impl Default for Settings {
    /// A free loopback port; R4 at `/fhir` and at `/` (as HAPI is seen through the tutorial's
    /// rewrite), R5 at `/fhir-r5`.
    fn default() -> Self {
        let mount = |path: &str, version| Mount { path: path.to_owned(), version };
        Self {
            addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            mounts: vec![
                mount("/fhir", FhirVersion::R4),
                mount("/fhir-r5", FhirVersion::R5),
                mount("/", FhirVersion::R4),
            ],
            max_body: 4 * 1024 * 1024,
            max_resources: 10_000,
            max_versions: 100,
            max_entries: 500,
            max_recorded: 256,
        }
    }
}

/// A running store. Dropping it ends it at once.
pub struct FhirStore {
    addr: SocketAddr,
    state: Arc<Store>,
    server: tokio::sync::Mutex<Option<Server>>,
}

/// Starts an empty store.
///
/// # Errors
/// [`Error::Settings`], [`Error::NotLoopback`] or [`Error::Listen`].
pub async fn start(settings: Settings) -> Result<FhirStore, Error> {
    for mount in &settings.mounts {
        if !mount.path.starts_with('/') || (mount.path.len() > 1 && mount.path.ends_with('/')) {
            let text = format!("the mount {:?} must begin and not end with a slash", mount.path);
            return Err(Error::Settings(text));
        }
    }
    let listener = serve::bind(settings.addr).await?;
    let state = Arc::new(Store::new(settings));
    let server = state.spawn(listener)?;
    Ok(FhirStore { addr: server.addr(), state, server: tokio::sync::Mutex::new(Some(server)) })
}

impl FhirStore {
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its root as a URL without a final slash: `http://127.0.0.1:PORT`.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Puts a resource in by its own `resourceType` and `id`, as an update would.
    ///
    /// # Errors
    /// [`Error::Settings`] with the reason that the server would have given.
    pub fn seed(&self, version: FhirVersion, resource: Value) -> Result<(), Error> {
        let refused = |text: String| Error::Settings(format!("cannot seed the resource: {text}"));
        let text = |name: &str| resource.get(name).and_then(Value::as_str).map(str::to_owned);
        let (kind, id) = text("resourceType")
            .zip(text("id"))
            .ok_or_else(|| refused("it lacks a resourceType or an id".to_owned()))?;
        check::resource(version, &kind, &resource).map_err(|problem| refused(problem.text))?;
        check::id(&id).map_err(|problem| refused(problem.text))?;
        let mut data = self.state.data(version);
        data.put(&kind, &id, resource).map(|_| ()).map_err(|problem| refused(problem.text))
    }

    /// The requests that reached it, oldest first, health probes included.
    pub fn recorded(&self) -> Vec<RecordedRequest> {
        self.state.recorder.all()
    }

    /// Forgets the recorded requests.
    pub fn clear_recorded(&self) {
        self.state.recorder.clear();
    }

    /// How many requests reached it since the start.
    pub fn requests(&self) -> u64 {
        self.state.knobs.asked(())
    }

    /// Makes it wait before each answer; zero ends that.
    pub fn set_delay(&self, delay: Duration) {
        self.state.knobs.set_delay((), delay);
    }

    /// Makes it give this answer to everything; `None` ends that.
    pub fn set_answer(&self, answer: Option<Answer>) {
        self.state.knobs.set_answer((), answer);
    }

    /// Stops listening; requests in flight finish. Its resources stay for [`FhirStore::resume`].
    pub async fn stop(&self) {
        if let Some(server) = self.server.lock().await.take() {
            server.stop().await;
        }
    }

    /// Cuts every connection and stops listening at once. Its resources stay.
    pub async fn kill(&self) {
        if let Some(server) = self.server.lock().await.take() {
            server.kill().await;
        }
    }

    /// Listens again at the same address, with the same resources. Does nothing while it listens.
    ///
    /// # Errors
    /// [`Error::Listen`] when the address was taken meanwhile.
    pub async fn resume(&self) -> Result<(), Error> {
        let mut server = self.server.lock().await;
        if server.is_none() {
            *server = Some(self.state.spawn(serve::bind(self.addr).await?)?);
        }
        Ok(())
    }
}

/// What the handlers share.
struct Store {
    settings: Settings,
    r4: Mutex<Dataset>,
    r5: Mutex<Dataset>,
    recorder: Recorder,
    knobs: Knobs<()>,
}

impl Store {
    fn new(settings: Settings) -> Self {
        let limits = Limits { resources: settings.max_resources, versions: settings.max_versions };
        Self {
            r4: Mutex::new(Dataset::new(limits)),
            r5: Mutex::new(Dataset::new(limits)),
            recorder: Recorder::new(settings.max_recorded),
            knobs: Knobs::default(),
            settings,
        }
    }

    fn spawn(self: &Arc<Self>, listener: tokio::net::TcpListener) -> Result<Server, Error> {
        let addr = self.settings.addr;
        let router = http_face::router(Arc::clone(self));
        Server::spawn(listener, router, None).map_err(|source| Error::Listen { addr, source })
    }

    /// One release's resources. Held for one interaction or one Bundle, never across an await.
    fn data(&self, version: FhirVersion) -> MutexGuard<'_, Dataset> {
        let data = match version {
            FhirVersion::R4 => &self.r4,
            FhirVersion::R5 => &self.r5,
        };
        data.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
