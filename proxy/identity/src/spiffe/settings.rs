//! `identity.certificates:` of the settings file.

use std::{path::PathBuf, time::Duration};

use rustls_pki_types::ServerName;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de::Error as _};

use super::id::check_trust_domain;

/// `identity.certificates:` where the workloads' certificates come from (exactly one of `embedded`, `files`,
/// `workloadApi`, `istioCa`), and whom they trust.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CertificateSettings {
    /// An authority of our own: for demos, tests and a single proxy.
    pub embedded: Option<EmbeddedCaSettings>,
    /// Folders that somebody else keeps current, such as cert-manager's CSI driver.
    pub files: Vec<CertificateFolder>,
    /// An agent of SPIRE, or another that speaks the SPIFFE Workload API.
    pub workload_api: Option<WorkloadApiSettings>,
    /// Istio's certificate authority.
    pub istio_ca: Option<IstioCaSettings>,
    /// Trust domains and their roots, beside what the supplier itself brings.
    pub trust: Vec<TrustSettings>,
    /// Files with revocation lists, PEM or DER; an empty file has none, as Istio's `istio-ca-crl` has none.
    /// A list that has expired refuses its issuer's certificates.
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
            workload_api: None,
            istio_ca: None,
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
    /// Folder of the roots; made where missing. `bundle.pem` in it is for peers to trust. `fhirward node`
    /// reads and writes it as `capture.user`, so the folder must be that user's.
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

/// `workloadApi:` certificates, roots, foreign roots and revocation lists from an agent on this machine,
/// which says what we are entitled to, and says it again when it changes.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadApiSettings {
    /// The agent's socket, `unix:///run/spire/agent.sock` or the path alone.
    #[serde(deserialize_with = "socket")]
    pub socket: PathBuf,
    /// How long the agent may take for a connection and for its first answer, in milliseconds.
    #[serde(default = "ten_seconds")]
    pub timeout_ms: u64,
}

/// `istioCa:` certificates that Istio's authority signs for keys that are made here, and its roots.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IstioCaSettings {
    /// Host and port, such as `istiod.istio-system.svc:15012`; always TLS.
    pub address: String,
    /// Name that its certificate must bear; the host where not given.
    pub server_name: Option<String>,
    /// PEM file of the roots that its certificate is checked by; read for each connection.
    pub ca_file: PathBuf,
    /// File of the token that says who we are (audience `istio-ca`); read for each request.
    pub token_file: PathBuf,
    /// Which of the mesh's clusters asks, by istiod's name for it (its `CLUSTER_ID`); not said where
    /// empty, and istiod then gives no certificate in a workload's name.
    #[serde(default = "usual_cluster")]
    pub cluster_id: String,
    /// Ask for the workloads' certificates in their name (`ImpersonatedIdentity`), as a proxy of a whole
    /// node must. Without, the authority gives a certificate for the bearer of the token alone.
    #[serde(default = "yes")]
    pub impersonate: bool,
    /// Life of a workload's certificate that is asked for, in seconds. The authority may give less;
    /// istiod refuses more than its `MAX_WORKLOAD_CERT_TTL`.
    #[serde(default = "a_day")]
    pub leaf_seconds: u64,
    /// How long the authority may take for a connection and for an answer, each, in milliseconds.
    #[serde(default = "ten_seconds")]
    pub timeout_ms: u64,
}

fn yes() -> bool {
    true
}

/// What istiod, ztunnel and Istio's charts call a cluster that nobody has named.
fn usual_cluster() -> String {
    "Kubernetes".to_owned()
}

fn ten_seconds() -> u64 {
    10_000
}

/// SPIFFE Workload Endpoint §4: a URI with the scheme `unix`, an absolute path and nothing else.
fn socket<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    let text = String::deserialize(deserializer)?;
    let path = match text.split_once(':') {
        None => text.as_str(),
        Some(("unix", path)) => path.strip_prefix("//").unwrap_or(path),
        Some(_) => return Err(D::Error::custom("expected unix:///path of a socket, or its path")),
    };
    if path.is_empty() || (path.len() < text.len() && !path.starts_with('/')) {
        return Err(D::Error::custom("expected an absolute path after unix://"));
    }
    Ok(path.into())
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
/// The shortest life that Istio's authority is asked for.
const ISTIO_LEAF_SECONDS_MIN: u64 = 60;
/// The longest wait for who hands out certificates: ten minutes.
const TIMEOUT_MS_MAX: u64 = 600_000;
/// The longest life of a root: 30 years.
const ROOT_SECONDS_MAX: u64 = 30 * 365 * 24 * 3_600;

impl CertificateSettings {
    /// Whether any workload can have a certificate.
    #[must_use]
    pub fn supplies(&self) -> bool {
        self.suppliers().next().is_some()
    }

    /// The fields of those that are given.
    fn suppliers(&self) -> impl Iterator<Item = &'static str> {
        let given = [
            ("embedded", self.embedded.is_some()),
            ("files", !self.files.is_empty()),
            ("workloadApi", self.workload_api.is_some()),
            ("istioCa", self.istio_ca.is_some()),
        ];
        given.into_iter().filter_map(|(field, given)| given.then_some(field))
    }

    /// Checks what types cannot say; gives the field, below `identity.certificates`, and the mistake.
    ///
    /// # Errors
    /// The first mistake.
    pub fn check(&self) -> Result<(), (String, String)> {
        let wrong = |field: &str, message: &str| Err((field.to_owned(), message.to_owned()));
        let mut suppliers = self.suppliers();
        match (suppliers.next(), suppliers.next()) {
            (Some(_), None) => {}
            (None, _) => {
                return wrong("", "one of `embedded`, `files`, `workloadApi`, `istioCa` is needed");
            }
            (Some(one), Some(other)) => {
                let message = format!("certificates come from `{one}` or from `{other}`, not from both");
                return Err((other.to_owned(), message));
            }
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
        self.embedded.as_ref().map_or(Ok(()), EmbeddedCaSettings::check)?;
        self.workload_api.as_ref().map_or(Ok(()), WorkloadApiSettings::check)?;
        self.istio_ca.as_ref().map_or(Ok(()), IstioCaSettings::check)
    }

    /// Every path in it.
    pub fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let embedded = self.embedded.iter_mut().map(|embedded| &mut embedded.folder);
        let files = self.files.iter_mut().map(|entry| &mut entry.folder);
        let trust = self.trust.iter_mut().flat_map(|entry| &mut entry.bundles);
        let api = self.workload_api.iter_mut().map(|api| &mut api.socket);
        let istio = self.istio_ca.iter_mut().flat_map(|ca| [&mut ca.ca_file, &mut ca.token_file]);
        embedded.chain(files).chain(trust).chain(api).chain(istio).chain(&mut self.crls)
    }
}

impl WorkloadApiSettings {
    pub(super) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    fn check(&self) -> Result<(), (String, String)> {
        check_timeout("workloadApi", self.timeout_ms)
    }
}

impl IstioCaSettings {
    pub(super) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    /// # Errors
    /// What is wrong with `address`.
    pub(super) fn host_and_port(&self) -> Result<(&str, u16), &'static str> {
        let (host, port) = self.address.rsplit_once(':').ok_or("expected host:port")?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        ServerName::try_from(host).map_err(|_| "the host is neither a name nor an address")?;
        match port.parse() {
            Ok(port) if port > 0 => Ok((host, port)),
            _ => Err("expected a port between 1 and 65535"),
        }
    }

    fn check(&self) -> Result<(), (String, String)> {
        let wrong = |field: &str, message: &str| Err((format!("istioCa.{field}"), message.to_owned()));
        if let Err(message) = self.host_and_port() {
            return wrong("address", message);
        }
        if self.server_name.as_deref().is_some_and(|name| ServerName::try_from(name).is_err()) {
            return wrong("serverName", "neither a name nor an address");
        }
        if !self.cluster_id.bytes().all(|byte| byte.is_ascii_graphic()) {
            return wrong("clusterId", "only visible ASCII characters");
        }
        if self.leaf_seconds < ISTIO_LEAF_SECONDS_MIN {
            return wrong("leafSeconds", "at least 60 seconds");
        }
        check_timeout("istioCa", self.timeout_ms)
    }
}

fn check_timeout(supplier: &str, milliseconds: u64) -> Result<(), (String, String)> {
    match milliseconds {
        1..=TIMEOUT_MS_MAX => Ok(()),
        _ => Err((format!("{supplier}.timeoutMs"), "between 1 and 600000".to_owned())),
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
