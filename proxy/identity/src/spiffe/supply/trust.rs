//! The trust bundles, read again each second and published when they changed.

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Supplier, SupplyError};
use crate::spiffe::{Bundle, CertificateSettings, TrustBundles};

/// How often roots and revocation lists are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The largest file of roots.
const BUNDLE_BYTES: u64 = 1024 * 1024;
/// The largest file of revocation lists.
const CRL_BYTES: u64 = 16 * 1024 * 1024;

/// Who is trusted now, and how that is found out.
pub(super) struct Trust {
    supplier: Arc<dyn Supplier>,
    settings: Arc<CertificateSettings>,
    trust_domain: String,
    aliases: Vec<String>,
    publish: watch::Sender<Arc<TrustBundles>>,
    state: Mutex<State>,
}

struct State {
    gathered: Gathered,
    problem: Option<String>,
}

/// What the sources say.
#[derive(PartialEq, Default)]
struct Gathered {
    domains: Vec<(String, Bundle)>,
    crls: Vec<Vec<u8>>,
}

/// How the bundles stand.
#[derive(Debug, Clone, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TrustStatus {
    /// Changes with every change.
    pub version: u64,
    /// Trust domain, number of roots, seconds until the last of them expires.
    pub domains: Vec<(String, usize, i64)>,
    /// Why what the sources say now is not in use.
    pub problem: Option<String>,
}

impl Trust {
    pub(super) fn new(
        supplier: Arc<dyn Supplier>,
        settings: Arc<CertificateSettings>,
        trust_domain: &str,
        aliases: &[String],
    ) -> Result<Self, SupplyError> {
        let (publish, _) = watch::channel(Arc::new(TrustBundles::new(0)));
        let state = Mutex::new(State { gathered: Gathered::default(), problem: None });
        let (trust_domain, aliases) = (trust_domain.to_owned(), aliases.to_vec());
        let trust = Self { supplier, settings, trust_domain, aliases, publish, state };
        let gathered = trust.gather()?;
        trust.take(gathered)?;
        Ok(trust)
    }

    pub(super) fn receiver(&self) -> watch::Receiver<Arc<TrustBundles>> {
        self.publish.subscribe()
    }

    pub(super) fn status(&self, now: i64) -> TrustStatus {
        let bundles = Arc::clone(&self.publish.borrow());
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let domain = |(name, bundle): (&str, &Bundle)| {
            let left = bundle.not_after().unwrap_or(now) - now;
            (name.to_owned(), bundle.certificates().count(), left)
        };
        TrustStatus {
            version: bundles.version(),
            domains: bundles.domains().map(domain).collect(),
            problem: state.problem.clone(),
        }
    }

    /// Reads the sources; the old bundles stay where they cannot be used. Blocks on the file system.
    fn look(&self) {
        let taken = self.gather().and_then(|gathered| self.take(gathered));
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let problem = taken.err().map(|error| error.to_string());
        if let Some(error) = problem.as_ref().filter(|_| state.problem != problem) {
            tracing::warn!(%error, "the trust bundles cannot be used as they are; the old ones stay");
        }
        state.problem = problem;
    }

    fn gather(&self) -> Result<Gathered, SupplyError> {
        let mut gathered = Gathered::default();
        let own = self.supplier.roots()?;
        if !own.is_empty() {
            gathered.domains.push((self.trust_domain.clone(), Bundle::from_roots(own)?));
        }
        for entry in &self.settings.trust {
            for path in &entry.bundles {
                let bundle = Bundle::from_pem(&read(path, BUNDLE_BYTES)?)
                    .map_err(|source| SupplyError::Bundle { path: path.clone(), source })?;
                gathered.domains.push((entry.domain.clone(), bundle));
            }
        }
        for path in &self.settings.crls {
            gathered.crls.push(read(path, CRL_BYTES)?);
        }
        Ok(gathered)
    }

    fn take(&self, gathered: Gathered) -> Result<(), SupplyError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.gathered == gathered {
            return Ok(());
        }
        let mut bundles = TrustBundles::new(self.publish.borrow().version() + 1);
        for (domain, bundle) in &gathered.domains {
            bundles = bundles.with_domain(domain, bundle.clone())?;
        }
        for alias in &self.aliases {
            bundles = bundles.with_alias(alias, &self.trust_domain)?;
        }
        for (path, bytes) in self.settings.crls.iter().zip(&gathered.crls) {
            bundles = bundles
                .with_crls(bytes)
                .map_err(|source| SupplyError::Bundle { path: path.clone(), source })?;
        }
        state.gathered = gathered;
        tracing::info!(version = bundles.version(), "trust bundles in force");
        self.publish.send_replace(Arc::new(bundles));
        Ok(())
    }
}

/// Looks again and again, until told to stop.
pub(super) async fn keep(trust: Arc<Trust>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = stop.cancelled() => return,
        }
        let trust = Arc::clone(&trust);
        let _ = tokio::task::spawn_blocking(move || trust.look()).await;
    }
}

/// A whole file, if it is not larger than that.
pub(super) fn read(path: &Path, most: u64) -> Result<Vec<u8>, SupplyError> {
    let failed = |reason: String| SupplyError::File { path: path.to_owned(), reason };
    let length = fs::metadata(path).map_err(|error| failed(error.to_string()))?.len();
    if length > most {
        return Err(failed(format!("larger than {most} bytes")));
    }
    fs::read(path).map_err(|error| failed(error.to_string()))
}
