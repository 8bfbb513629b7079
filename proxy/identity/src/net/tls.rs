//! What a provider's certificate is checked against: the operator's file, or the system's authorities.

use std::{path::Path, sync::Arc};

use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs::default_provider};
use rustls_pki_types::{CertificateDer, pem::PemObject};

/// Largest `caFile`.
const CA_FILE_BYTES: u64 = 1024 * 1024;

/// Why there is nothing to check certificates against.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrustError {
    #[error("caFile cannot be read: {0}")]
    Unreadable(std::io::Error),
    #[error("caFile has no certificate that can be used")]
    NoCertificate,
    #[error("caFile is too large")]
    TooLarge,
    #[error("TLS cannot be set up: {0}")]
    Setup(rustls::Error),
}

/// The authorities of a `caFile`, and none other. Read at each fetch, so that a renewed file counts.
///
/// # Errors
/// [`TrustError`].
pub(crate) async fn from_file(path: &Path) -> Result<Arc<ClientConfig>, TrustError> {
    let size = tokio::fs::metadata(path).await.map_err(TrustError::Unreadable)?.len();
    if size > CA_FILE_BYTES {
        return Err(TrustError::TooLarge);
    }
    let pem = tokio::fs::read(path).await.map_err(TrustError::Unreadable)?;
    let mut roots = RootCertStore::empty();
    let found = CertificateDer::pem_slice_iter(&pem).flatten();
    let (added, _) = roots.add_parsable_certificates(found);
    if added == 0 {
        return Err(TrustError::NoCertificate);
    }
    config(roots)
}

/// The system's authorities. A machine that has none can still fetch by http and with a `caFile`:
/// there every https handshake fails with an unknown issuer.
///
/// # Errors
/// [`TrustError::Setup`].
pub(crate) fn from_system() -> Result<Arc<ClientConfig>, TrustError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    config(roots)
}

fn config(roots: RootCertStore) -> Result<Arc<ClientConfig>, TrustError> {
    // The provider is named, never the process-wide default: that is somebody else's to choose.
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TrustError::Setup)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
