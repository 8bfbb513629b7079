//! One workload's certificate, kept current by a task of its own.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use policy::SpiffeId;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Ask, Next, Supplier, SupplyError, Svid, Trust, dice, pause};
use crate::{Clock, spiffe::CertificateSettings};

/// How often a supplier whose certificates change by themselves is asked.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The wall clock may be set: no sleep is longer than this.
const SLEEP_MOST: Duration = Duration::from_secs(30);

/// Said of a certificate that others should have renewed.
const OVERDUE: &str = "it should have been renewed by now";

/// The certificate of one workload identity, and no other's. Dropped, it is kept current no longer.
#[derive(Debug)]
pub struct Handle {
    id: SpiffeId,
    svid: watch::Receiver<Option<Arc<Svid>>>,
    state: Arc<Mutex<State>>,
    _end: DropGuard,
}

#[derive(Debug, Default)]
struct State {
    renewals: u64,
    failures: u64,
    failures_in_row: u32,
    error: Option<String>,
}

/// How one certificate stands.
#[derive(Debug, Clone, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HandleStatus {
    /// SPIFFE id.
    pub identity: String,
    /// Whether there is a certificate that holds now.
    pub valid: bool,
    /// Whether it should have been renewed by now.
    pub late: bool,
    /// Until its end; negative: since. `None`: there is none.
    pub expires_in_seconds: Option<i64>,
    /// Certificates taken into service so far.
    pub renewals: u64,
    /// Attempts that failed so far.
    pub failures: u64,
    /// Why the last attempt failed; `None` after a success.
    pub problem: Option<String>,
}

impl Handle {
    /// Whose certificate it is.
    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// The certificate, now and whenever it is renewed; `None` until the first is there.
    #[must_use]
    pub fn svid(&self) -> watch::Receiver<Option<Arc<Svid>>> {
        self.svid.clone()
    }

    pub(super) fn status(&self, now: i64) -> HandleStatus {
        let svid = self.svid.borrow().clone();
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        HandleStatus {
            identity: self.id.to_string(),
            valid: svid.as_ref().is_some_and(|svid| svid.not_after() >= now),
            late: svid.as_ref().is_none_or(|svid| svid.is_late(now)),
            expires_in_seconds: svid.map(|svid| svid.not_after() - now),
            renewals: state.renewals,
            failures: state.failures,
            problem: state.error.clone(),
        }
    }
}

/// A handle, and the task that keeps it current until it is dropped or `stop` is called.
pub(super) fn make(
    id: SpiffeId,
    supplier: Arc<dyn Supplier>,
    trust: Arc<Trust>,
    (settings, clock): (Arc<CertificateSettings>, Clock),
    stop: CancellationToken,
) -> (Arc<Handle>, impl Future<Output = ()> + Send + 'static) {
    let (publish, svid) = watch::channel(None);
    let state = Arc::new(Mutex::new(State::default()));
    let keeper =
        Keeper { id: id.clone(), supplier, trust, settings, clock, publish, state: Arc::clone(&state) };
    let end = stop.clone().drop_guard();
    let task = async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = keeper.keep() => {}
        }
    };
    (Arc::new(Handle { id, svid, state, _end: end }), task)
}

struct Keeper {
    id: SpiffeId,
    supplier: Arc<dyn Supplier>,
    trust: Arc<Trust>,
    settings: Arc<CertificateSettings>,
    clock: Clock,
    publish: watch::Sender<Option<Arc<Svid>>>,
    state: Arc<Mutex<State>>,
}

impl Keeper {
    async fn keep(self) {
        loop {
            // Before the question: what is said in the meantime counts.
            let changed = self.supplier.changed();
            let pause = self.attempt().await.err().map(|error| self.failed(&error));
            let rest = async {
                match pause {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => self.rest().await,
                }
            };
            tokio::select! {
                () = changed => {}
                () = rest => {}
            }
        }
    }

    async fn attempt(&self) -> Result<(), SupplyError> {
        let held = self.publish.borrow().clone();
        let material = self.supplier.supply(Ask { id: &self.id, held: held.as_deref() }).await?;
        let fresh = match material {
            Some(material) => {
                // Roots may have come with it.
                let trust = Trust::current(&self.trust).await;
                Some(Svid::new(&self.id, material, &trust, self.clock.now())?)
            }
            None => None,
        };
        let now = self.clock.now();
        let overdue = fresh.is_none() && held.is_some_and(|held| held.is_late(now));
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.failures_in_row = 0;
        if !overdue {
            state.error = None;
        } else if state.error.as_deref() != Some(OVERDUE) {
            tracing::warn!(identity = %self.id, OVERDUE);
            state.error = Some(OVERDUE.to_owned());
            state.failures += 1;
        }
        if let Some(svid) = fresh {
            state.renewals += 1;
            drop(state);
            let seconds = svid.not_after() - self.clock.now();
            tracing::info!(identity = %self.id, expires_in_seconds = seconds, "certificate in service");
            self.publish.send_replace(Some(Arc::new(svid)));
        }
        Ok(())
    }

    /// Until the supplier is to be asked again.
    async fn rest(&self) {
        let held = self.publish.borrow().clone();
        let Some(held) = held else { return tokio::time::sleep(LOOK_EVERY).await };
        match self.supplier.next(&held) {
            Next::Look => tokio::time::sleep(LOOK_EVERY).await,
            Next::Told if held.is_late(self.clock.now()) => std::future::pending().await,
            Next::Told => self.until(held.late_at() + 1).await,
            // However short its life is, who hands out certificates is not asked without a pause.
            Next::Renew => {
                let at = held.renew_at(dice()).max(self.clock.now().saturating_add(1));
                tokio::select! {
                    () = self.until(at) => {}
                    () = self.set_back(&held) => {}
                }
            }
        }
    }

    /// Until the clock is set back behind the moment when a certificate came.
    async fn set_back(&self, held: &Svid) {
        while !held.is_ahead(self.clock.now()) {
            tokio::time::sleep(SLEEP_MOST).await;
        }
    }

    /// Until this Unix time in seconds.
    async fn until(&self, at: i64) {
        loop {
            let left = u64::try_from(at - self.clock.now()).unwrap_or(0);
            if left == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_secs(left).min(SLEEP_MOST)).await;
        }
    }

    /// Counts and tells; says how long to wait.
    fn failed(&self, error: &SupplyError) -> Duration {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let text = error.to_string();
        // Once per change: a supplier that stays down must not fill the log.
        if state.error.as_deref() != Some(text.as_str()) {
            tracing::warn!(identity = %self.id, %error, "no new certificate; the old one stays, if there is one");
        }
        state.error = Some(text);
        state.failures += 1;
        let pause = pause(&self.settings, state.failures_in_row);
        state.failures_in_row = state.failures_in_row.saturating_add(1);
        pause
    }
}
