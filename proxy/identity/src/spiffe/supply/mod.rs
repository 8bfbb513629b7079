//! Certificates for our own workloads, and the roots that peers are verified by.
//!
//! A supplier (the [`Supplier`] trait) says where they come from; here they are kept current: one
//! task per workload identity in use, which asks again before two thirds of a certificate's life, and
//! one task for the trust bundles. Keys are in memory only. Whoever serves a workload has that
//! workload's [`Handle`], which reaches no other's key.

mod embedded;
mod files;
mod handle;
mod istio_ca;
mod remote;
mod svid;
#[cfg(test)]
mod tests;
mod trust;
mod workload_api;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use futures_util::future::BoxFuture;
use policy::SpiffeId;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroize;

use super::{BundleError, CertificateSettings, PeerError, TrustBundles};
use crate::Clock;

pub use handle::{Handle, HandleStatus};
pub use svid::Svid;
pub use trust::TrustStatus;

use embedded::EmbeddedCa;
use files::Files;
use istio_ca::IstioCa;
use trust::{Known, Trust};
use workload_api::WorkloadApi;

/// Why a certificate or a root cannot be had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SupplyError {
    /// A file or folder.
    #[error("{}: {reason}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Roots or revocation lists that cannot be used.
    #[error("{}: {source}", path.display())]
    Bundle {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: BundleError,
    },
    /// Roots of a supplier that cannot be used.
    #[error(transparent)]
    Roots(#[from] BundleError),
    /// The supplier has no certificate for this workload.
    #[error("there is no certificate for {0}")]
    Unknown(String),
    /// A certificate came that every peer would refuse.
    #[error("the certificate of {0} cannot be used: {1}")]
    Refused(String, PeerError),
    /// A certificate came for somebody else.
    #[error("the certificate of {0} is another's: {1}")]
    Foreign(String, String),
    /// Certificate and key do not fit.
    #[error("the key of {0} cannot be used: {1}")]
    Key(String, String),
    /// Who hands out certificates is not there, or refuses us.
    #[error("{0}: {1}")]
    Down(String, String),
    /// What was answered cannot be used.
    #[error("the answer for {0} cannot be used: {1}")]
    Answer(String, String),
    /// The authority could not sign.
    #[error("the authority cannot sign: {0}")]
    Sign(String),
}

/// A certificate and its key, as a supplier hands them over. The key is wiped when it is dropped.
struct Material {
    /// Leaf first.
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Drop for Material {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

/// Where certificates come from.
trait Supplier: Send + Sync + 'static {
    /// A certificate for this workload; `None` where the one that was handed over last is still the newest.
    fn supply<'a>(&'a self, ask: Ask<'a>) -> BoxFuture<'a, Result<Option<Material>, SupplyError>>;

    /// Whom it says to trust. May block.
    fn known(&self) -> Result<Known, SupplyError>;

    /// When to ask for a workload's certificate again.
    fn next(&self, svid: &Svid) -> Next;

    /// Goes up whenever `known` may have changed, where that is not found out by looking.
    fn version(&self) -> u64 {
        0
    }

    /// Done when the supplier has something new to say after this call; by itself never.
    fn changed(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}

/// One question to a supplier.
struct Ask<'a> {
    id: &'a SpiffeId,
    /// What is in service now.
    held: Option<&'a Svid>,
}

/// When to ask a supplier again.
enum Next {
    /// Well before two thirds of the certificate's life are over.
    Renew,
    /// It may change at any time.
    Look,
    /// It says itself when there is another.
    Told,
}

/// The certificates of our workloads and the bundles that peers are verified by.
pub struct Supply {
    supplier: Arc<dyn Supplier>,
    trust: Arc<Trust>,
    settings: Arc<CertificateSettings>,
    clock: Clock,
    handles: Mutex<HashMap<SpiffeId, Weak<Handle>>>,
    stop: CancellationToken,
}

impl std::fmt::Debug for Supply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Supply")
    }
}

impl Supply {
    /// Reads or makes the roots, and keeps the bundles current until told to stop. Blocks on the
    /// file system; needs a running tokio runtime.
    ///
    /// # Errors
    /// [`SupplyError`]: an authority that cannot be made or read, files that are named and cannot be used.
    pub fn start(
        settings: CertificateSettings,
        (trust_domain, aliases): (&str, &[String]),
        clock: Clock,
        stop: CancellationToken,
    ) -> Result<Arc<Self>, SupplyError> {
        let settings = Arc::new(settings);
        let supplier: Arc<dyn Supplier> = if let Some(embedded) = &settings.embedded {
            Arc::new(EmbeddedCa::new(embedded.clone(), trust_domain, clock))
        } else if let Some(api) = &settings.workload_api {
            Arc::new(WorkloadApi::start(api, Arc::clone(&settings), stop.clone()))
        } else if let Some(authority) = &settings.istio_ca {
            Arc::new(IstioCa::new(authority.clone(), clock))
        } else {
            Arc::new(Files::new(&settings.files, trust_domain))
        };
        let trust = Trust::new(Arc::clone(&supplier), Arc::clone(&settings), trust_domain, aliases)?;
        let trust = Arc::new(trust);
        tokio::spawn(trust::keep(Arc::clone(&trust), stop.clone()));
        let handles = Mutex::default();
        Ok(Arc::new(Self { supplier, trust, settings, clock, handles, stop }))
    }

    /// The handle of one workload identity; its certificate is on its way, if it is not there yet.
    /// It is kept current for as long as somebody holds the handle. Needs a running tokio runtime.
    #[must_use]
    pub fn workload(&self, id: &SpiffeId) -> Arc<Handle> {
        let mut handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = handles.get(id).and_then(Weak::upgrade) {
            return handle;
        }
        handles.retain(|_, handle| handle.strong_count() > 0);
        let (handle, task) = handle::make(
            id.clone(),
            Arc::clone(&self.supplier),
            Arc::clone(&self.trust),
            (Arc::clone(&self.settings), self.clock),
            self.stop.child_token(),
        );
        tokio::spawn(task);
        handles.insert(id.clone(), Arc::downgrade(&handle));
        handle
    }

    /// The bundles that peers are verified by, now and whenever they change.
    #[must_use]
    pub fn trust(&self) -> watch::Receiver<Arc<TrustBundles>> {
        self.trust.receiver()
    }

    /// Whether TLS 1.2 is taken from peers.
    #[must_use]
    pub fn allows_tls12(&self) -> bool {
        self.settings.tls12
    }

    /// How the certificates stand, by identity.
    #[must_use]
    pub fn status(&self) -> Vec<HandleStatus> {
        let handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        let mut all: Vec<_> =
            handles.values().filter_map(Weak::upgrade).map(|handle| handle.status(now)).collect();
        all.sort_by(|one, other| one.identity.cmp(&other.identity));
        all
    }

    /// How the bundles stand.
    #[must_use]
    pub fn trust_status(&self) -> TrustStatus {
        self.trust.status(self.clock.now())
    }
}

/// How long to wait after so many failures in a row: doubled each time, and not for all alike.
fn pause(settings: &CertificateSettings, failures_before: u32) -> Duration {
    let doubled = failures_before.min(16);
    let pause = Duration::from_millis(settings.retry_min_ms).saturating_mul(1 << doubled);
    pause.min(Duration::from_millis(settings.retry_max_ms)).mul_f64(0.8 + 0.2 * dice())
}

/// A number between 0 and 1, so that many tasks do not act at once.
fn dice() -> f64 {
    let mut random = [0_u8; 2];
    // Without randomness there is no jitter, which is no harm.
    let _ = aws_lc_rs::rand::fill(&mut random);
    f64::from(u16::from_be_bytes(random)) / f64::from(u16::MAX)
}
