//! `identity.certificates:` of the settings file.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::id::check_trust_domain;

/// `identity.certificates:` where the workloads' certificates come from (one of `embedded`, `files`),
/// and whom they trust.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CertificateSettings {
    /// An authority of our own: for demos, tests and a single proxy.
    pub embedded: Option<EmbeddedCaSettings>,
    /// Folders that somebody else keeps current, such as cert-manager's CSI driver.
    pub files: Vec<CertificateFolder>,
    /// Trust domains and their roots, beside what the supplier itself brings.
    pub trust: Vec<TrustSettings>,
    /// Files with revocation lists, PEM or DER. A list that has expired refuses its issuer's certificates.
    pub crls: Vec<PathBuf>,
    /// Take TLS 1.2 from peers of the mesh, beside TLS 1.3.
    pub tls12: bool,
    /// First wait after a certificate could not be had, in milliseconds; doubled with each further failure.
    pub retry_min_ms: u64,
    /// Longest wait after a certificate could not be had, in milliseconds.
    pub retry_max_ms: u64,
}

impl Default for CertificateSettings {
    fn default() -> Self {
        Self {
            embedded: None,
            files: Vec::new(),
            trust: Vec::new(),
            crls: Vec::new(),
            tls12: false,
            retry_min_ms: 1_000,
            retry_max_ms: 60_000,
        }
    }
}

/// `embedded:` an authority of our own. Its roots' keys are kept in the folder, readable by nobody else;
/// the keys of intermediates and workloads are in memory only.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EmbeddedCaSettings {
    /// Folder of the roots; made where missing. `bundle.pem` in it is for peers to trust.
    pub folder: PathBuf,
    /// Life of a workload's certificate, in seconds.
    #[serde(default = "an_hour")]
    pub leaf_seconds: u64,
    /// Life of an intermediate, in seconds.
    #[serde(default = "a_week")]
    pub intermediate_seconds: u64,
    /// Life of a root, in seconds.
    #[serde(default = "a_year")]
    pub root_seconds: u64,
    /// A new root is trusted for so long before it signs anything, in seconds.
    #[serde(default = "a_day")]
    pub overlap_seconds: u64,
}

fn an_hour() -> u64 {
    3_600
}

fn a_day() -> u64 {
    24 * 3_600
}

fn a_week() -> u64 {
    7 * 24 * 3_600
}

fn a_year() -> u64 {
    365 * 24 * 3_600
}

/// One workload identity's folder, in the layout of a Kubernetes TLS secret.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CertificateFolder {
    /// `namespace/name` of the service account whose certificate it is.
    pub service_account: String,
    /// Folder with `tls.crt` (leaf first), `tls.key` and, where it brings its roots, `ca.crt`.
    pub folder: PathBuf,
}

/// The roots of one trust domain. They vouch for no other.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrustSettings {
    /// The trust domain.
    pub domain: String,
    /// PEM files of its roots; read again when they change.
    pub bundles: Vec<PathBuf>,
}

/// The shortest life of a workload's certificate.
const LEAF_SECONDS_MIN: u64 = 5;
/// The longest life of a root: 30 years.
const ROOT_SECONDS_MAX: u64 = 30 * 365 * 24 * 3_600;

impl CertificateSettings {
    /// Whether any workload can have a certificate.
    #[must_use]
    pub fn supplies(&self) -> bool {
        self.embedded.is_some() || !self.files.is_empty()
    }

    /// Checks what types cannot say; gives the field, below `identity.certificates`, and the mistake.
    ///
    /// # Errors
    /// The first mistake.
    pub fn check(&self) -> Result<(), (String, String)> {
        let wrong = |field: &str, message: &str| Err((field.to_owned(), message.to_owned()));
        if self.embedded.is_some() && !self.files.is_empty() {
            return wrong("files", "certificates come from `embedded` or from `files`, not from both");
        }
        for (index, entry) in self.files.iter().enumerate() {
            let field = format!("files[{index}].serviceAccount");
            if entry.service_account.parse::<policy::WorkloadName>().is_err() {
                return wrong(&field, "expected namespace/name of a service account");
            }
            if self.files.iter().take(index).any(|other| other.service_account == entry.service_account) {
                return wrong(&field, "the service account is there twice");
            }
        }
        for (index, entry) in self.trust.iter().enumerate() {
            if let Err(error) = check_trust_domain(&entry.domain) {
                return Err((format!("trust[{index}].domain"), error.to_string()));
            }
            if entry.bundles.is_empty() {
                return Err((format!("trust[{index}].bundles"), "at least one file is needed".to_owned()));
            }
        }
        if self.retry_min_ms == 0 || self.retry_max_ms < self.retry_min_ms {
            return wrong("retryMinMs", "at least 1, and `retryMaxMs` no less");
        }
        self.embedded.as_ref().map_or(Ok(()), EmbeddedCaSettings::check)
    }

    /// Every path in it.
    pub fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let embedded = self.embedded.iter_mut().map(|embedded| &mut embedded.folder);
        let files = self.files.iter_mut().map(|entry| &mut entry.folder);
        let trust = self.trust.iter_mut().flat_map(|entry| &mut entry.bundles);
        embedded.chain(files).chain(trust).chain(&mut self.crls)
    }
}

impl EmbeddedCaSettings {
    fn check(&self) -> Result<(), (String, String)> {
        let wrong = |field: &str, message: &str| Err((format!("embedded.{field}"), message.to_owned()));
        if self.leaf_seconds < LEAF_SECONDS_MIN {
            return wrong("leafSeconds", "at least 5 seconds");
        }
        if self.intermediate_seconds < self.leaf_seconds.saturating_mul(2) {
            return wrong("intermediateSeconds", "at least twice `leafSeconds`");
        }
        if self.root_seconds > ROOT_SECONDS_MAX {
            return wrong("rootSeconds", "at most 30 years");
        }
        let needed = self.intermediate_seconds.saturating_add(self.overlap_seconds).saturating_mul(2);
        if self.root_seconds < needed {
            return wrong(
                "rootSeconds",
                "at least twice `intermediateSeconds` and `overlapSeconds` together",
            );
        }
        Ok(())
    }
}
