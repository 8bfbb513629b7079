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
            let file = current(folder).join("ca.crt");
            if file.exists() {
                roots.extend(certificates(&file)?);
            }
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
