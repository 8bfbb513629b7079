//! Folders that somebody else keeps current: cert-manager's CSI driver, a mounted TLS secret.
//!
//! Layout: `tls.crt` (leaf first), `tls.key`, `ca.crt` (roots; optional). Kubernetes swaps all three
//! at once by a link `..data`, through which they are read where it is there.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use futures_util::future::BoxFuture;
use policy::WorkloadName;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use zeroize::Zeroizing;

use super::{Ask, Known, Material, Next, Supplier, SupplyError, Svid, trust::read};
use crate::spiffe::CertificateFolder;

/// The largest file of a certificate, key or roots.
const FILE_BYTES: u64 = 1024 * 1024;
/// How often a folder is looked at again that is swapped meanwhile.
const SWAPS: usize = 4;

/// Certificates by service account, from folders.
pub(super) struct Files {
    /// By `namespace/name` of the service account.
    folders: HashMap<String, PathBuf>,
    trust_domain: String,
}

impl Files {
    pub(super) fn new(folders: &[CertificateFolder], trust_domain: &str) -> Self {
        let entry = |entry: &CertificateFolder| (entry.service_account.clone(), entry.folder.clone());
        Self { folders: folders.iter().map(entry).collect(), trust_domain: trust_domain.to_owned() }
    }
}

impl Supplier for Files {
    fn supply<'a>(&'a self, ask: Ask<'a>) -> BoxFuture<'a, Result<Option<Material>, SupplyError>> {
        let name = WorkloadName { namespace: ask.id.namespace.clone(), name: ask.id.service_account.clone() };
        let folder = self.folders.get(&name.to_string()).cloned();
        let held: Vec<CertificateDer<'static>> =
            ask.held.map(|svid| svid.key().cert.clone()).unwrap_or_default();
        Box::pin(async move {
            let Some(folder) = folder else { return Err(SupplyError::Unknown(ask.id.to_string())) };
            let load = tokio::task::spawn_blocking(move || load(&folder, &held));
            load.await.unwrap_or_else(|_| Err(SupplyError::Unknown(ask.id.to_string())))
        })
    }

    fn known(&self) -> Result<Known, SupplyError> {
        let mut folders: Vec<_> = self.folders.values().collect();
        // Always the same order: a change of it is no change of what is trusted.
        folders.sort();
        let mut roots = Vec::new();
        for folder in folders {
            roots.extend(roots_of(folder, current)?);
        }
        Known::own(&self.trust_domain, roots)
    }

    fn next(&self, _: &Svid) -> Next {
        Next::Look
    }
}

/// The folder's content of this moment, so that certificate and key are of one swap.
fn current(folder: &Path) -> PathBuf {
    fs::canonicalize(folder.join("..data")).unwrap_or_else(|_| folder.to_owned())
}

/// The roots in a folder; none where it brings none. A folder that was swapped after it was found has none
/// any more, and would take every connection with it whose peer they vouch for.
fn roots_of(
    folder: &Path,
    current: impl Fn(&Path) -> PathBuf,
) -> Result<Vec<CertificateDer<'static>>, SupplyError> {
    let mut at = current(folder);
    for _ in 0..SWAPS {
        let file = at.join("ca.crt");
        if file.exists() {
            return certificates(&file);
        }
        let now = current(folder);
        if now == at && at.is_dir() == folder.is_dir() {
            return Ok(Vec::new());
        }
        at = now;
    }
    let reason = "it is changed again and again".to_owned();
    Err(SupplyError::File { path: folder.to_owned(), reason })
}

/// The pair, unless its chain is the one in service. A renewal makes a new certificate, always.
fn load(folder: &Path, held: &[CertificateDer<'static>]) -> Result<Option<Material>, SupplyError> {
    let folder = current(folder);
    let chain = certificates(&folder.join("tls.crt"))?;
    if chain == held {
        return Ok(None);
    }
    let path = folder.join("tls.key");
    let key = PrivateKeyDer::from_pem_slice(&Zeroizing::new(read(&path, FILE_BYTES)?))
        .map_err(|error| SupplyError::File { path, reason: error.to_string() })?;
    Ok(Some(Material { chain, key }))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, SupplyError> {
    let failed = |reason: String| SupplyError::File { path: path.to_owned(), reason };
    let chain = CertificateDer::pem_slice_iter(&read(path, FILE_BYTES)?).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| failed(error.to_string()))?;
    if chain.is_empty() { Err(failed("holds no certificate".to_owned())) } else { Ok(chain) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::cell::Cell;

    use super::*;

    /// Kubernetes removes the old folder as soon as the link leads to the new one.
    #[test]
    fn a_folder_that_is_swapped_while_it_is_read_keeps_its_roots() {
        let folder = tempfile::tempdir().unwrap();
        let new = folder.path().join("..new");
        fs::create_dir(&new).unwrap();
        fs::write(new.join("ca.crt"), certs::Authority::mint("root").unwrap().certificate_pem()).unwrap();
        let looked = Cell::new(0);
        let swapped_after = |times: usize| {
            looked.set(0);
            let (new, old, looked) = (new.clone(), folder.path().join("..old"), &looked);
            move |_: &Path| {
                looked.set(looked.get() + 1);
                if looked.get() > times { new.clone() } else { old.join(looked.get().to_string()) }
            }
        };
        for times in [0, 1, 3] {
            assert_eq!(roots_of(folder.path(), swapped_after(times)).unwrap().len(), 1, "{times}");
        }
        assert!(roots_of(folder.path(), swapped_after(usize::MAX)).is_err());
        fs::remove_file(new.join("ca.crt")).unwrap();
        assert!(roots_of(folder.path(), swapped_after(1)).unwrap().is_empty(), "it brings none");
        let missing = folder.path().join("missing");
        assert!(roots_of(&missing, current).unwrap().is_empty(), "it is not there yet");
    }
}
