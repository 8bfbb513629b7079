//! A certificate chain and its key, as PEM files.

use std::{
    fs,
    hash::{BuildHasher, Hasher},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

/// The largest file read as a certificate chain or key.
const FILE_BYTES: u64 = 1024 * 1024;

/// Where a listener's certificate is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM: the leaf first, then its issuers.
    pub certificate: PathBuf,
    /// PEM: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
}

/// Why a pair cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not what it should be.
    #[error("{}: {reason}", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Certificate and key do not belong together, or cannot be used for signing.
    #[error("{}: {source}", path.display())]
    Pair {
        /// The certificate's file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The cryptography does not offer what we ask of it: a bug of ours.
    #[error("TLS cannot be set up: {0}")]
    Provider(rustls::Error),
}

/// What the files hold, in short: changes with their content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint(u64);

/// A pair that can be used.
pub(super) struct Loaded {
    pub(super) key: Arc<CertifiedKey>,
    pub(super) fingerprint: Fingerprint,
}

impl TlsFiles {
    pub(super) fn fingerprint(&self) -> Result<Fingerprint, TlsError> {
        Ok(fingerprint(&read(&self.certificate)?, &read(&self.key)?))
    }

    pub(super) fn load(&self) -> Result<Loaded, TlsError> {
        let (certificate, key) = (read(&self.certificate)?, read(&self.key)?);
        let fingerprint = fingerprint(&certificate, &key);
        let content = |path: &Path, reason: String| TlsError::Content { path: path.into(), reason };
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&certificate)
            .collect::<Result<_, _>>()
            .map_err(|error| content(&self.certificate, error.to_string()))?;
        if chain.is_empty() {
            return Err(content(&self.certificate, "holds no certificate".to_owned()));
        }
        let key =
            PrivateKeyDer::from_pem_slice(&key).map_err(|error| content(&self.key, error.to_string()))?;
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let pair = |source| TlsError::Pair { path: self.certificate.clone(), source };
        let key = CertifiedKey::from_der(chain, key, &provider).map_err(pair)?;
        key.keys_match().map_err(pair)?;
        Ok(Loaded { key: Arc::new(key), fingerprint })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::Read { path: path.to_owned(), source };
    let length = fs::metadata(path).map_err(failed)?.len();
    if length > FILE_BYTES {
        let reason = format!("larger than {FILE_BYTES} bytes");
        return Err(TlsError::Content { path: path.to_owned(), reason });
    }
    fs::read(path).map_err(failed)
}

/// Of the content: a file's time may not change where a volume is swapped under it.
fn fingerprint(certificate: &[u8], key: &[u8]) -> Fingerprint {
    let mut hasher = ahash::RandomState::with_seeds(1, 2, 3, 4).build_hasher();
    hasher.write(certificate);
    hasher.write_usize(certificate.len());
    hasher.write(key);
    Fingerprint(hasher.finish())
}
