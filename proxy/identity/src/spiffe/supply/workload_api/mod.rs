//! The SPIFFE Workload API: an agent on this machine says which certificates we are entitled to, and
//! says so again whenever one of them, a root or a revocation list changes.
//!
//! One stream serves all workloads. What it said last holds until it says otherwise: an agent that is
//! gone, refuses us or says nonsense is told of, and takes nothing out of service.

mod push;
#[cfg(test)]
mod tests;

use std::{path::PathBuf, sync::Arc};

use futures_util::future::BoxFuture;
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataValue;

use super::{
    Ask, Known, Material, Next, Supplier, SupplyError, Svid, pause,
    remote::{Call, Link, LinkError, messages::X509SvidRequest},
};
use crate::spiffe::{CertificateSettings, WorkloadApiSettings};

use push::Push;

/// Workload API §4.1: without it, the agent must refuse us.
const HEADER: &str = "workload.spiffe.io";
const FETCH: &str = "/SpiffeWorkloadAPI/FetchX509SVID";
/// The largest push: some thousands of certificates.
const MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// Certificates by SPIFFE id, from an agent.
pub(super) struct WorkloadApi {
    socket: PathBuf,
    news: watch::Receiver<State>,
}

/// What is known, and whether that is still what the agent says.
#[derive(Clone, Default)]
struct State {
    push: Arc<Push>,
    /// Changes with every change.
    version: u64,
    stands: Stands,
}

#[derive(Clone, Default, PartialEq)]
enum Stands {
    /// The agent has not been heard yet.
    #[default]
    Waits,
    Told,
    /// Why the agent is not heard, or not understood.
    Broken(Arc<str>),
}

impl WorkloadApi {
    /// Connects, and stays connected until told to stop. Needs a running tokio runtime.
    pub(super) fn start(
        own: &WorkloadApiSettings,
        settings: Arc<CertificateSettings>,
        stop: CancellationToken,
    ) -> Self {
        let (publish, news) = watch::channel(State::default());
        let socket = own.socket.clone();
        let follower = Follower { own: own.clone(), settings, publish };
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = follower.keep() => {}
            }
        });
        Self { socket, news }
    }

    fn down(&self, reason: &str) -> SupplyError {
        SupplyError::Down(format!("the Workload API at {}", self.socket.display()), reason.to_owned())
    }

    async fn find(&self, ask: &Ask<'_>) -> Result<Option<Material>, SupplyError> {
        let mut news = self.news.clone();
        // The first answer or the first failure is not far: it has its limit.
        let Ok(state) = news.wait_for(|state| state.stands != Stands::Waits).await.map(|state| state.clone())
        else {
            return Err(self.down("it is asked no longer"));
        };
        let held: &[CertificateDer<'static>] = ask.held.map_or(&[], |svid| &svid.key().cert);
        let entry = state.push.svids.get(ask.id);
        // What the agent gave holds, also when it is gone: a workload that came since needs it all the more.
        if let Some(Ok(entry)) = entry.filter(|entry| entry.as_ref().is_ok_and(|entry| entry.chain != held)) {
            return Ok(Some(Material { chain: entry.chain.clone(), key: entry.key.clone_key() }));
        }
        match (&state.stands, entry) {
            (Stands::Broken(reason), _) => Err(self.down(reason)),
            (_, Some(Ok(_))) => Ok(None),
            (_, Some(Err(reason))) => Err(SupplyError::Answer(ask.id.to_string(), reason.clone())),
            (_, None) => Err(SupplyError::Unknown(ask.id.to_string())),
        }
    }
}

impl Supplier for WorkloadApi {
    fn supply<'a>(&'a self, ask: Ask<'a>) -> BoxFuture<'a, Result<Option<Material>, SupplyError>> {
        Box::pin(async move { self.find(&ask).await })
    }

    fn known(&self) -> Result<Known, SupplyError> {
        let state = self.news.borrow();
        let mut known = state.push.known.clone();
        if let Stands::Broken(reason) = &state.stands {
            known.problem = Some(self.down(reason).to_string());
        }
        Ok(known)
    }

    fn next(&self, _: &Svid) -> Next {
        Next::Told
    }

    fn version(&self) -> u64 {
        self.news.borrow().version
    }

    fn changed(&self) -> BoxFuture<'static, ()> {
        let mut news = self.news.clone();
        let seen = news.borrow_and_update().version;
        Box::pin(async move {
            if news.wait_for(|state| state.version != seen).await.is_err() {
                // Nobody will say anything any more.
                std::future::pending::<()>().await;
            }
        })
    }
}

/// The task that listens to the agent.
struct Follower {
    own: WorkloadApiSettings,
    settings: Arc<CertificateSettings>,
    publish: watch::Sender<State>,
}

impl Follower {
    async fn keep(self) {
        let mut failures = 0;
        loop {
            let error = self.listen(&mut failures).await;
            self.broken(error.to_string());
            let pause = pause(&self.settings, failures);
            failures = failures.saturating_add(1);
            tokio::time::sleep(pause).await;
        }
    }

    /// Until the stream breaks; says why it did.
    async fn listen(&self, failures: &mut u32) -> LinkError {
        let limit = self.own.timeout();
        let link = match Link::unix(&self.own.socket, limit).await {
            Ok(link) => link,
            Err(error) => return error,
        };
        let mut request = tonic::Request::new(X509SvidRequest {});
        request.metadata_mut().insert(HEADER, MetadataValue::from_static("true"));
        let call = Call { path: FETCH, request, bytes: MESSAGE_BYTES, limit };
        let (mut said, mut stream) = match link.follow(call).await {
            Ok(both) => both,
            Err(error) => return error,
        };
        loop {
            match Push::read(said) {
                Ok(push) => {
                    *failures = 0;
                    self.told(push);
                }
                // The next may be better: the stream goes on.
                Err(error) => self.broken(error.to_string()),
            }
            said = match stream.message().await {
                Ok(Some(next)) => next,
                Ok(None) => return LinkError::Ended,
                Err(status) => return status.into(),
            };
        }
    }

    fn told(&self, push: Push) {
        tracing::info!(certificates = push.svids.len(), "the Workload API has told its certificates");
        self.publish.send_modify(|state| {
            state.push = Arc::new(push);
            state.stands = Stands::Told;
            state.version += 1;
        });
    }

    fn broken(&self, reason: String) {
        let stands = Stands::Broken(reason.into());
        self.publish.send_if_modified(|state| {
            if state.stands == stands {
                return false;
            }
            state.stands = stands;
            state.version += 1;
            true
        });
    }
}
