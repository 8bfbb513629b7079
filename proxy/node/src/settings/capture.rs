//! `capture:` which pods' traffic eBPF brings to the node's proxy, and what that may cost. Read by
//! `fhirward agent` and `fhirward node` alike, so that both speak of the same socket and user.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

use policy::WorkloadName;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// `capture:` of the settings file.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CaptureSettings {
    /// Unix socket between `fhirward agent`, which makes it, and `fhirward node`.
    pub socket: PathBuf,
    /// Address of the agent's own `/metrics` and `/healthz`; loopback unless told otherwise.
    pub agent_address: SocketAddr,
    /// `uid:gid`, as numbers, that `fhirward node` becomes when it is started as root; the socket
    /// admits this user and root alone. Neither may be 0.
    #[schemars(with = "String")]
    pub user: User,
    /// Folder of a BPF file system, in which `fhirward/` is made for programs' links and maps; two agents
    /// on one host need two.
    pub pin_path: PathBuf,
    /// Root of the cgroup v2 tree; the mount of type `cgroup2` where not given.
    pub cgroup_root: Option<PathBuf>,
    /// Find the pods of a Kubernetes node by their cgroups (`pod<uid>`, systemd and cgroupfs layouts)
    /// and match them with the Pod objects of the manifests.
    pub discover: bool,
    /// Pods by hand: network namespaces and cgroups on this host.
    pub pods: Vec<PodSettings>,
    /// The application sees its client's address as the peer of a captured connection; otherwise one
    /// of its own pod's.
    pub transparent_source: bool,
    /// End TCP connections that a pod opened before it was enrolled, which would go on around the proxy.
    pub end_old_connections: bool,
    /// What the node itself (kubelet) may send to a captured pod without the policies' word: `probes`
    /// (HTTP GETs of the declared probes, bare opens of TCP and gRPC probe ports), `all`, `none`.
    pub host: HostSettings,
    /// How long a captured connection may keep silent before it is taken for one whose server speaks
    /// first, where nothing declares its protocol; milliseconds.
    pub detect_timeout_ms: u64,
    /// Sockets inside the pods' network namespaces that the proxy keeps ready.
    pub stock: StockSettings,
    /// Forwarding of the pods' DNS queries.
    pub dns: DnsSettings,
}

/// `capture.pods[]`: one pod by hand.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodSettings {
    /// The workload (`namespace/name`) that it is of; captured while the workload is enrolled.
    pub name: String,
    /// File of its network namespace (`/run/netns/a`, `/proc/123/ns/net`).
    pub netns: PathBuf,
    /// Its cgroup: a folder in the cgroup v2 tree.
    pub cgroup: PathBuf,
    /// Probes that the node sends to it, beside those of its Pod object.
    #[serde(default)]
    pub probes: Vec<ProbeSettings>,
    /// Join its sockets to the proxy's in the kernel (sk_msg); its annotation
    /// `fhirward.dev/socket-acceleration` where not given. Read the README on what it breaks first.
    #[serde(default)]
    pub socket_acceleration: Option<bool>,
}

/// `capture.pods[].probes[]`: a probe that the node sends.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProbeSettings {
    /// Container port.
    pub port: u16,
    /// Path of an HTTP probe; a bare open of the port where not given.
    #[serde(default)]
    pub path: Option<String>,
}

/// What the node itself may send to a captured pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum HostSettings {
    /// The declared probes; all else is judged, as from a caller without identity.
    #[default]
    Probes,
    /// Everything.
    All,
    /// Nothing: all of it is judged.
    None,
}

/// `capture.stock:` sockets kept ready, so that no request waits for the agent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct StockSettings {
    /// Sockets asked for at first, for each pod, kind (outwards, inwards, DNS) and IP version it has;
    /// a stock that falls below half of its level is filled again.
    pub initial: u32,
    /// Highest level: one that ran dry doubles until here.
    pub most: u32,
    /// Most sockets of all pods together that wait for use.
    pub total: u32,
    /// Longest wait of a connection that finds its stock empty, until it is refused; milliseconds.
    pub wait_ms: u64,
}

/// `capture.dns:` forwarding of DNS queries.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DnsSettings {
    /// Most queries under way for one pod; further ones are dropped, and counted.
    pub queries_per_pod: u32,
    /// Most queries under way for all pods together.
    pub queries: u32,
    /// How long an answer is waited for; milliseconds.
    pub timeout_ms: u64,
}

/// A user and a group, neither of them root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl FromStr for User {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |part: &str| part.parse::<u32>().ok().filter(|id| *id != 0 && *id != u32::MAX);
        let user = text.split_once(':').and_then(|(uid, gid)| Some((number(uid)?, number(gid)?)));
        let (uid, gid) = user.ok_or_else(|| {
            format!("`{text}` is not `uid:gid` with two numbers, neither of them 0 (`65532:65532`)")
        })?;
        Ok(Self { uid, gid })
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.uid, self.gid)
    }
}

impl<'de> Deserialize<'de> for User {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// The schema shows defaults as they are written in the file.
impl Serialize for User {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Default for CaptureSettings {
    fn default() -> Self {
        Self {
            socket: "/run/fhirward/agent.sock".into(),
            agent_address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15_002),
            user: User { uid: 65_532, gid: 65_532 },
            pin_path: "/sys/fs/bpf".into(),
            cgroup_root: None,
            discover: false,
            pods: Vec::new(),
            transparent_source: true,
            end_old_connections: true,
            host: HostSettings::Probes,
            detect_timeout_ms: 100,
            stock: StockSettings::default(),
            dns: DnsSettings::default(),
        }
    }
}

impl Default for StockSettings {
    fn default() -> Self {
        Self { initial: 8, most: 256, total: 16_384, wait_ms: 2000 }
    }
}

impl Default for DnsSettings {
    fn default() -> Self {
        Self { queries_per_pod: 1024, queries: 8192, timeout_ms: 5000 }
    }
}

impl CaptureSettings {
    /// What is wrong, with its field below `capture`.
    pub(super) fn check(&self) -> Result<(), (String, String)> {
        let wrong = |field: &str, message: &str| Err((format!("capture.{field}"), message.to_owned()));
        if self.pods.is_empty() && !self.discover {
            return wrong("pods", "no pod is listed and `discover` is not set: nothing would be captured");
        }
        for (index, pod) in self.pods.iter().enumerate() {
            pod.check().map_err(|(field, message)| (format!("capture.pods[{index}].{field}"), message))?;
            for other in self.pods.iter().take(index) {
                if other.netns == pod.netns {
                    return wrong(&format!("pods[{index}].netns"), "another pod has this network namespace");
                }
                if other.cgroup == pod.cgroup {
                    return wrong(&format!("pods[{index}].cgroup"), "another pod has this cgroup");
                }
            }
        }
        let StockSettings { initial, most, total, wait_ms } = self.stock;
        if initial == 0 || most < initial || total < most {
            return wrong("stock", "at least 1, and `initial` <= `most` <= `total`");
        }
        let DnsSettings { queries_per_pod, queries, timeout_ms } = self.dns;
        if queries_per_pod == 0 || queries < queries_per_pod {
            return wrong("dns", "at least 1, and `queriesPerPod` <= `queries`");
        }
        let times = [("detectTimeoutMs", self.detect_timeout_ms), ("stock.waitMs", wait_ms)];
        for (field, milliseconds) in times.into_iter().chain([("dns.timeoutMs", timeout_ms)]) {
            if milliseconds == 0 || milliseconds > LONGEST_WAIT_MS {
                return wrong(field, "from 1 to 600000 milliseconds");
            }
        }
        Ok(())
    }

    /// Every path of it, for those that are relative.
    pub(super) fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let pods = self.pods.iter_mut().flat_map(|pod| [&mut pod.netns, &mut pod.cgroup]);
        [&mut self.socket, &mut self.pin_path].into_iter().chain(self.cgroup_root.as_mut()).chain(pods)
    }
}

/// Longest of the waits, milliseconds.
const LONGEST_WAIT_MS: u64 = 600_000;

impl PodSettings {
    fn check(&self) -> Result<(), (String, String)> {
        self.name.parse::<WorkloadName>().map_err(|error| ("name".to_owned(), error.to_string()))?;
        for (index, probe) in self.probes.iter().enumerate() {
            let at = |field: &str| format!("probes[{index}].{field}");
            if probe.port == 0 {
                return Err((at("port"), "a port is at least 1".to_owned()));
            }
            if probe.path.as_ref().is_some_and(|path| !path.starts_with('/')) {
                return Err((at("path"), "a path starts with `/`".to_owned()));
            }
        }
        Ok(())
    }
}
