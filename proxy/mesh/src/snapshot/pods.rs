//! Pods of workloads, as whoever captures their traffic needs to know them.

use std::{collections::BTreeMap, net::IpAddr};

use serde::Deserialize;

use super::null_is_default;

/// A Pod object of a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its own name.
    pub name: String,
    /// `metadata.uid`; empty where the manifest has none.
    pub uid: String,
    /// `status.podIPs`; none while it has none, for a finished pod and for one on the node's network.
    pub ips: Vec<IpAddr>,
    /// Its own labels.
    pub labels: BTreeMap<String, String>,
    /// Its own annotations.
    pub annotations: BTreeMap<String, String>,
    /// `spec.hostNetwork`: it is on the node's network and cannot be told apart there.
    pub host_network: bool,
    /// It has ended (`Succeeded`, `Failed`).
    pub finished: bool,
    /// In the mesh: by the settings of its workload, its own labels or its namespace's.
    pub enrolled: bool,
}

/// A probe that the node (kubelet) sends to a container.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Probe {
    /// Container port.
    pub port: u16,
    /// How it is asked.
    pub kind: ProbeKind,
}

/// How a container is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ProbeKind {
    /// An HTTP GET.
    Http {
        /// Path and query as declared, with a leading slash.
        path: String,
    },
    /// The gRPC health check (`grpc.health.v1.Health/Check`).
    Grpc,
    /// The port is opened, and nothing said. An HTTPS probe too: nobody but its ends can read it.
    Tcp,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PodSpec {
    pub(super) service_account_name: Option<String>,
    pub(super) service_account: Option<String>,
    #[serde(deserialize_with = "null_is_default")]
    containers: Vec<Container>,
    /// Some of them are sidecars that serve ports.
    #[serde(deserialize_with = "null_is_default")]
    init_containers: Vec<Container>,
    pub(super) host_network: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Container {
    ports: Option<Vec<ContainerPort>>,
    liveness_probe: Option<ProbeSpec>,
    readiness_probe: Option<ProbeSpec>,
    startup_probe: Option<ProbeSpec>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ContainerPort {
    pub(super) name: Option<String>,
    pub(super) container_port: u16,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ProbeSpec {
    http_get: Option<HttpGet>,
    tcp_socket: Option<PortOnly>,
    grpc: Option<PortOnly>,
}

#[derive(Debug, Deserialize)]
struct HttpGet {
    #[serde(default)]
    path: Option<String>,
    port: IntOrString,
    #[serde(default)]
    scheme: Option<String>,
}

#[derive(Debug, Deserialize)]
struct PortOnly {
    port: IntOrString,
}

/// Kubernetes' number or name of a port.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum IntOrString {
    Int(u16),
    String(String),
}

impl PodSpec {
    fn all(&self) -> impl Iterator<Item = &Container> {
        self.containers.iter().chain(&self.init_containers)
    }

    /// Ports of all containers.
    pub(super) fn ports(&self) -> impl Iterator<Item = &ContainerPort> {
        self.all().filter_map(|container| container.ports.as_ref()).flatten()
    }

    /// Probes of all containers, each once. One whose port nobody has is left out: it cannot succeed.
    pub(super) fn probes(&self) -> Vec<Probe> {
        let mut probes = Vec::new();
        for container in self.all() {
            let specs = [&container.liveness_probe, &container.readiness_probe, &container.startup_probe];
            for probe in specs.into_iter().flatten().filter_map(|spec| container.probe(spec)) {
                if !probes.contains(&probe) {
                    probes.push(probe);
                }
            }
        }
        probes
    }
}

impl Container {
    fn probe(&self, spec: &ProbeSpec) -> Option<Probe> {
        if let Some(get) = &spec.http_get {
            let https = get.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
            let kind = if https { ProbeKind::Tcp } else { ProbeKind::http(get.path.as_deref()) };
            return Some(Probe { port: self.port(&get.port)?, kind });
        }
        if let Some(grpc) = &spec.grpc {
            return Some(Probe { port: self.port(&grpc.port)?, kind: ProbeKind::Grpc });
        }
        let tcp = spec.tcp_socket.as_ref()?;
        Some(Probe { port: self.port(&tcp.port)?, kind: ProbeKind::Tcp })
    }

    fn port(&self, port: &IntOrString) -> Option<u16> {
        match port {
            IntOrString::Int(port) => Some(*port),
            IntOrString::String(name) => name.parse().ok().or_else(|| {
                let mut ports = self.ports.iter().flatten();
                ports.find(|port| port.name.as_ref() == Some(name)).map(|port| port.container_port)
            }),
        }
    }
}

impl ProbeKind {
    /// An HTTP probe of that path, as kubelet asks for it: without one, for the root.
    #[must_use]
    pub fn http(path: Option<&str>) -> Self {
        let path = path.unwrap_or_default();
        let slash = if path.starts_with('/') { "" } else { "/" };
        Self::Http { path: format!("{slash}{path}") }
    }
}
