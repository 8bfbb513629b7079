//! The settings file: one type, from which the README's reference is generated.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use dataplane::Limits;
use identity::{IdentitySettings, spiffe::CertificateSettings};
use mesh::{MeshSettings, WorkloadSettings};
use observe::ObserveSettings;
use policy::{Place, Problem, Severity, WorkloadName};
use schemars::JsonSchema;
use serde::Deserialize;

mod capture;
mod reference;
#[cfg(test)]
mod tests;

pub use capture::{
    CaptureSettings, DnsSettings, HostSettings, PodSettings, ProbeSettings, StockSettings, User,
};
pub use reference::reference;

/// Largest settings file read, in bytes.
const MAX_SETTINGS_BYTES: u64 = 1024 * 1024;

/// The settings file of `fhirward run`, `agent` and `node`. Relative paths are taken from the file's own folder.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Settings {
    /// Where traffic comes in, beside what is captured; at least one where nothing is.
    #[serde(default)]
    pub listeners: Vec<ListenerSettings>,
    /// Manifests and what they do not say.
    #[serde(default)]
    pub mesh: MeshSettings,
    /// Identity providers and their keys.
    #[serde(default)]
    pub identity: IdentitySettings,
    /// Limits on sizes, counts and times.
    #[serde(default)]
    pub limits: Limits,
    /// Metrics and access log.
    #[serde(default)]
    pub observe: ObserveSettings,
    /// Metrics, health and state for operators.
    #[serde(default)]
    pub admin: AdminSettings,
    /// Capture of pods by eBPF (`fhirward agent`, `fhirward node`); none where not given.
    #[serde(default)]
    pub capture: Option<CaptureSettings>,
}

/// One listener: for a workload (`to`) or for the ingress gateway (`gateway`).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListenerSettings {
    /// Name, for logs.
    pub name: String,
    /// Address to listen on.
    pub address: SocketAddr,
    /// The workload (`namespace/name`) whose policies hold here.
    #[serde(default)]
    pub to: Option<String>,
    /// The workload's container port, which policies know (`ports`, `destination.port`); needed
    /// with `to`, whatever port the listener itself is bound to.
    #[serde(default)]
    pub port: Option<u16>,
    /// Where the workload is really reached; its own address and port where not given.
    #[serde(default)]
    pub upstream: Option<SocketAddr>,
    /// The ingress gateway that this listener is.
    #[serde(default)]
    pub gateway: Option<GatewaySettings>,
    /// TLS with certificates from files, or mTLS of the mesh; plaintext where not given.
    #[serde(default)]
    pub tls: Option<TlsSettings>,
}

/// Which Gateway objects a listener stands for.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GatewaySettings {
    /// Labels of the gateway's pods, which `Gateway.spec.selector` must match.
    pub labels: BTreeMap<String, String>,
    /// The port as the Gateway object names it, whatever port is really bound.
    pub port: u16,
}

/// Certificate files, both read again when they change; or mTLS of the mesh.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TlsSettings {
    /// PEM file: the certificate, then its chain.
    pub certificate: Option<PathBuf>,
    /// PEM file: the private key.
    pub key: Option<PathBuf>,
    /// mTLS with the workload's own certificate (`identity.certificates`), as its PeerAuthentication
    /// has it: STRICT takes nothing else, PERMISSIVE plaintext too, DISABLE plaintext only.
    pub mesh: bool,
    /// HBONE, instead of `mesh`: tunnels to the workload's address at `port`, with the workload's own
    /// certificate, from clients with theirs, whatever PeerAuthentication says.
    pub hbone: bool,
}

/// `admin:` the operators' address.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AdminSettings {
    /// Address of `/metrics`, `/healthz`, `/readyz` and `/config_dump`. It has no access control:
    /// loopback unless told otherwise.
    pub address: SocketAddr,
    /// Threads that serve traffic; 0: one for each core.
    pub threads: usize,
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self { address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15000), threads: 0 }
    }
}

/// What a listener is for, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenerRole {
    /// A workload's port.
    Workload(WorkloadName, u16),
    /// The ingress gateway.
    Gateway(mesh::routing::GatewayKey),
}

impl Settings {
    /// Reads and checks a settings file.
    ///
    /// # Errors
    /// What is wrong, with file, line, column and field.
    pub fn load(file: &Path) -> Result<Self, Problem> {
        let name = file.display().to_string();
        let text = read(file).map_err(|error| whole_file(&name, error.to_string()))?;
        let mut settings = Self::parse(&name, &text)?;
        settings.take_paths_from(file.parent().unwrap_or(Path::new("")));
        Ok(settings)
    }

    /// Parses and checks settings; relative paths are left as they are.
    ///
    /// # Errors
    /// As [`Settings::load`].
    pub fn parse(name: &str, text: &str) -> Result<Self, Problem> {
        let mut settings: Self = policy::manifest::from_str(name, text)?;
        settings.check().map_err(|(field, message)| Problem { field, ..whole_file(name, message) })?;
        settings.merge_upstreams();
        Ok(settings)
    }

    fn check(&self) -> Result<(), (String, String)> {
        if let Some(capture) = &self.capture {
            capture.check()?;
        } else if self.listeners.is_empty() {
            return Err(("listeners".to_owned(), "at least one listener is needed".to_owned()));
        }
        for (index, listener) in self.listeners.iter().enumerate() {
            let at = |field: &str| format!("listeners[{index}].{field}");
            listener.role().map_err(|message| (at("to"), message))?;
            let certificates = self.identity.certificates.as_ref();
            let supplied = certificates.is_some_and(CertificateSettings::supplies);
            listener.check_tls(supplied).map_err(|message| (at("tls"), message))?;
            if listener.upstream.is_some() && listener.to.is_none() {
                return Err((at("upstream"), "`upstream` needs `to` beside it".to_owned()));
            }
        }
        if let Some(certificates) = &self.identity.certificates {
            let below = |(field, message): (String, String)| {
                let dot = if field.is_empty() { "" } else { "." };
                (format!("identity.certificates{dot}{field}"), message)
            };
            certificates.check().map_err(below)?;
        }
        for (index, workload) in self.mesh.workloads.iter().enumerate() {
            workload
                .name
                .parse::<WorkloadName>()
                .map_err(|error| (format!("mesh.workloads[{index}].name"), error.to_string()))?;
        }
        Ok(())
    }

    /// A listener's `upstream` says where its workload's port is reached: one place to keep that.
    fn merge_upstreams(&mut self) {
        for listener in &self.listeners {
            let (Some(name), Some(port), Some(address)) = (&listener.to, listener.port, listener.upstream)
            else {
                continue;
            };
            let known = self.mesh.workloads.iter_mut().find(|workload| workload.name == *name);
            match known {
                Some(workload) => {
                    workload.upstream.insert(port, address);
                }
                None => self.mesh.workloads.push(WorkloadSettings {
                    upstream: BTreeMap::from([(port, address)]),
                    ..WorkloadSettings::named(name)
                }),
            }
        }
    }

    fn take_paths_from(&mut self, folder: &Path) {
        let listeners = self.listeners.iter_mut().filter_map(|listener| listener.tls.as_mut());
        let tls = listeners.flat_map(|tls| [&mut tls.certificate, &mut tls.key]).flatten();
        let certificates = self.identity.certificates.iter_mut().flat_map(CertificateSettings::paths);
        let manifests = self.mesh.manifests.iter_mut();
        let authorities = self.identity.providers.iter_mut().filter_map(|p| p.ca_file.as_mut());
        let capture = self.capture.iter_mut().flat_map(CaptureSettings::paths);
        let other = [&mut self.identity.key_cache_dir, &mut self.observe.access_log.file];
        let tls = tls.chain(capture).chain(certificates);
        for path in tls.chain(manifests).chain(authorities).chain(other.into_iter().flatten()) {
            *path = folder.join(&*path);
        }
    }
}

impl ListenerSettings {
    fn check_tls(&self, supplied: bool) -> Result<(), String> {
        let Some(tls) = &self.tls else { return Ok(()) };
        let own = match (tls.mesh, tls.hbone) {
            (false, false) if tls.certificate.is_some() && tls.key.is_some() => return Ok(()),
            (false, false) => {
                let needs = "`tls` needs `certificate` and `key`, or `mesh: true`, or `hbone: true`";
                return Err(needs.to_owned());
            }
            (true, true) => return Err("a listener has `tls.mesh` or `tls.hbone`, not both".to_owned()),
            (true, false) => "tls.mesh",
            (false, true) => "tls.hbone",
        };
        if tls.certificate.is_some() || tls.key.is_some() {
            Err(format!("with `{own}` the certificate is the workload's own"))
        } else if self.to.is_none() {
            Err(format!("`{own}` is for a workload's listener (`to`)"))
        } else if !supplied {
            Err(format!("`{own}` needs `identity.certificates` to come from somewhere"))
        } else {
            Ok(())
        }
    }

    /// Whether it speaks the mesh's mTLS.
    #[must_use]
    pub fn is_mesh(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.mesh)
    }

    /// Whether it takes HBONE tunnels.
    #[must_use]
    pub fn is_hbone(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.hbone)
    }

    /// What this listener is for.
    ///
    /// # Errors
    /// When it is for nothing, for two things, or names no workload.
    pub fn role(&self) -> Result<ListenerRole, String> {
        match (&self.to, &self.gateway) {
            (Some(to), None) => {
                let name = to.parse::<WorkloadName>().map_err(|error| error.to_string())?;
                let port = self.port.ok_or("`to` needs the workload's container port in `port`")?;
                Ok(ListenerRole::Workload(name, port))
            }
            (None, Some(gateway)) if self.port.is_none() => {
                Ok(ListenerRole::Gateway(mesh::routing::GatewayKey {
                    labels: gateway.labels.clone(),
                    port: gateway.port,
                }))
            }
            (None, Some(_)) => Err("a gateway's port stands in `gateway.port`".to_owned()),
            (Some(_), Some(_)) => Err("a listener has `to` or `gateway`, not both".to_owned()),
            (None, None) => Err("a listener needs `to` or `gateway`".to_owned()),
        }
    }
}

fn read(file: &Path) -> std::io::Result<String> {
    let size = std::fs::metadata(file)?.len();
    if size > MAX_SETTINGS_BYTES {
        return Err(std::io::Error::other(format!(
            "{size} bytes are more than a settings file may have ({MAX_SETTINGS_BYTES})"
        )));
    }
    std::fs::read_to_string(file)
}

fn whole_file(file: &str, message: String) -> Problem {
    Problem {
        severity: Severity::Error,
        code: "bad-settings",
        place: Place { file: file.into(), line: 1, column: 1 },
        field: String::new(),
        object: None,
        message,
    }
}
