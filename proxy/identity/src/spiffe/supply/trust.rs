//! The trust bundles, read again each second and published when they changed.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustls_pki_types::CertificateDer;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroize;

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
    /// One look at a time: an old one may not overwrite what a newer one found.
    look: Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    gathered: Gathered,
    problem: Option<String>,
    /// The supplier's version that was looked at last.
    seen: u64,
}

/// Whom a supplier says to trust.
#[derive(Clone, Default)]
pub(super) struct Known {
    /// Trust domains and their roots.
    pub(super) domains: Vec<(String, Bundle)>,
    /// Revocation lists, DER.
    pub(super) crls: Vec<Vec<u8>>,
    /// What of it cannot be used or may be old, in spite of the rest.
    pub(super) problem: Option<String>,
}

impl Known {
    /// The roots of one trust domain; nobody's where there is none.
    pub(super) fn own(trust_domain: &str, roots: Vec<CertificateDer<'static>>) -> Result<Self, SupplyError> {
        let mut known = Self::default();
        if !roots.is_empty() {
            known.domains.push((trust_domain.to_owned(), Bundle::from_roots(roots)?));
        }
        Ok(known)
    }

    /// Further roots of a trust domain.
    pub(super) fn add(&mut self, trust_domain: &str, bundle: &Bundle) -> Result<(), SupplyError> {
        match self.domains.iter_mut().find(|(domain, _)| domain == trust_domain) {
            // Of a thousand workloads all bring the same.
            Some((_, known)) if known.holds(bundle) => {}
            Some((_, known)) => *known = known.joined(bundle)?,
            None => self.domains.push((trust_domain.to_owned(), bundle.clone())),
        }
        Ok(())
    }
}

/// What the sources say.
#[derive(PartialEq, Default)]
struct Gathered {
    domains: Vec<(String, Bundle)>,
    /// The supplier's, which have no file, and those of the settings.
    crls: Vec<(Option<PathBuf>, Vec<u8>)>,
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
        let (look, state) = (Mutex::default(), Mutex::default());
        let (trust_domain, aliases) = (trust_domain.to_owned(), aliases.to_vec());
        let trust = Self { supplier, settings, trust_domain, aliases, publish, look, state };
        trust.try_look()?;
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

    /// The bundles, with what the supplier has said up to now.
    pub(super) async fn current(trust: &Arc<Self>) -> Arc<TrustBundles> {
        let seen = trust.state.lock().unwrap_or_else(PoisonError::into_inner).seen;
        if seen != trust.supplier.version() {
            let trust = Arc::clone(trust);
            let _ = tokio::task::spawn_blocking(move || trust.look()).await;
        }
        Arc::clone(&trust.publish.borrow())
    }

    /// Reads the sources; the old bundles stay where they cannot be used. Blocks on the file system.
    fn look(&self) {
        let looked = self.try_look();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let problem = looked.unwrap_or_else(|error| Some(error.to_string()));
        if let Some(problem) = problem.as_ref().filter(|_| state.problem != problem) {
            tracing::warn!(%problem, "the trust bundles cannot be used as they are; the old ones stay");
        }
        state.problem = problem;
    }

    /// Gives what is wrong in spite of success.
    fn try_look(&self) -> Result<Option<String>, SupplyError> {
        let _one_at_a_time = self.look.lock().unwrap_or_else(PoisonError::into_inner);
        // Before the question: what is said in the meantime is looked at again.
        let version = self.supplier.version();
        let looked = self.gather().and_then(|(gathered, problem)| self.take(gathered).map(|()| problem));
        self.state.lock().unwrap_or_else(PoisonError::into_inner).seen = version;
        looked
    }

    /// What the sources say, and what is wrong with a part of it.
    fn gather(&self) -> Result<(Gathered, Option<String>), SupplyError> {
        let known = self.supplier.known()?;
        let crls = known.crls.into_iter().map(|list| (None, list)).collect();
        let mut gathered = Gathered { domains: known.domains, crls };
        for entry in &self.settings.trust {
            for path in &entry.bundles {
                let bundle = Bundle::from_pem(&read(path, BUNDLE_BYTES)?)
                    .map_err(|source| SupplyError::Bundle { path: path.clone(), source })?;
                gathered.domains.push((entry.domain.clone(), bundle));
            }
        }
        let mut problem = known.problem;
        for path in &self.settings.crls {
            let mut list = read(path, CRL_BYTES)?;
            if list.trim_ascii().is_empty() {
                // Istio mounts such a file (`istio-ca-crl`) where nothing is revoked. But a list that was
                // there is not forgotten by a file that somebody is writing.
                let Some(held) = self.held_list(path) else { continue };
                list = held;
                problem
                    .get_or_insert_with(|| format!("{}: emptied; its lists stay in force", path.display()));
            }
            gathered.crls.push((Some(path.clone()), list));
        }
        Ok((gathered, problem))
    }

    /// What this file held when it was last taken.
    fn held_list(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let held = state.gathered.crls.iter().find(|(from, _)| from.as_deref() == Some(path));
        held.map(|(_, list)| list.clone())
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
        for (path, bytes) in &gathered.crls {
            bundles = bundles.with_crls(bytes).map_err(|source| match path {
                Some(path) => SupplyError::Bundle { path: path.clone(), source },
                None => SupplyError::Roots(source),
            })?;
        }
        state.gathered = gathered;
        tracing::info!(version = bundles.version(), "trust bundles in force");
        self.publish.send_replace(Arc::new(bundles));
        Ok(())
    }
}

/// Looks again and again, until told to stop.
pub(super) async fn keep(trust: Arc<Trust>, stop: CancellationToken) {
    let mut changed = trust.supplier.changed();
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = &mut changed => {}
            () = stop.cancelled() => return,
        }
        // Before the look: what is said in the meantime is looked at again.
        changed = trust.supplier.changed();
        let trust = Arc::clone(&trust);
        let _ = tokio::task::spawn_blocking(move || trust.look()).await;
    }
}

/// A whole file, if it is not larger than that.
pub(super) fn read(path: &Path, most: u64) -> Result<Vec<u8>, SupplyError> {
    let failed = |reason: String| SupplyError::File { path: path.to_owned(), reason };
    let told = fs::metadata(path).map_err(|error| failed(error.to_string()))?;
    if !told.is_file() {
        // A pipe would be waited for, and a device read for ever.
        return Err(failed("is no file".to_owned()));
    }
    let file = fs::File::open(path).map_err(|error| failed(error.to_string()))?;
    let mut bytes = Vec::with_capacity(usize::try_from(told.len().min(most)).unwrap_or(0));
    let more = file.take(most.saturating_add(1)).read_to_end(&mut bytes);
    more.map_err(|error| failed(error.to_string()))?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= most) {
        return Ok(bytes);
    }
    bytes.zeroize();
    Err(failed(format!("larger than {most} bytes")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_is_read_is_a_file_and_not_too_large() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "12345").unwrap();
        assert_eq!(read(&file, 5).unwrap(), b"12345");
        let why = |path: &Path| read(path, 4).unwrap_err().to_string();
        assert!(why(&file).contains("larger than 4 bytes"));
        assert!(why(Path::new("/dev/zero")).contains("is no file"));
        assert!(why(folder.path()).contains("is no file"));
        // What says that it is empty, and goes on.
        assert!(why(Path::new("/proc/self/status")).contains("larger than 4 bytes"));
    }
}
