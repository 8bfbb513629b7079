//! A pod of a stage, with what the manifests say of it.

use std::net::{IpAddr, Ipv4Addr};

use demo::pods::Pod;

use super::{HTTP, LINES, Program, stage::NAMESPACE};

/// A pod with what the manifests say of it.
pub struct Actor {
    /// The pod.
    pub pod: Pod,
    /// Whether its label says that it is to be captured.
    pub enrolled: bool,
    /// Lines below `metadata:` and documents of its own, for some tests.
    pub probes: String,
    /// Its service's address.
    pub service: Ipv4Addr,
    /// Its server.
    pub server: Option<Program>,
    /// Its Kubernetes namespace.
    pub namespace: String,
    /// Whether the manifests name it; else the settings do, beside manifests of somebody's own.
    pub told: bool,
}

impl Actor {
    /// The node's address of the same family, as the pod knows it.
    #[must_use]
    pub fn gateway(&self, like: IpAddr) -> Option<IpAddr> {
        if like.is_ipv6() {
            self.pod.gateway_v6().map(IpAddr::V6)
        } else {
            self.pod.gateway_v4().map(IpAddr::V4)
        }
    }

    /// Pod and Service.
    pub(super) fn manifest(&self) -> String {
        let name = self.pod.name();
        let mesh = if self.enrolled { "enabled" } else { "disabled" };
        let addresses = self.pod.addresses();
        let first = addresses.first().map(ToString::to_string).unwrap_or_default();
        let all: Vec<String> = addresses.iter().map(|ip| format!("{{ip: \"{ip}\"}}")).collect();
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {NAMESPACE}, uid: {uid}, \
             labels: {{app: {name}, fhirward.dev/mesh: {mesh}}}}}\n\
             spec:\n  serviceAccountName: {name}\n  containers:\n  - name: c\n    ports: [{{name: lines, containerPort: {LINES}}}, {{name: http, containerPort: {HTTP}}}]\n{probes}\
             status: {{podIP: \"{first}\", podIPs: [{ips}]}}\n\
             ---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {NAMESPACE}}}\n\
             spec:\n  clusterIP: {service}\n  clusterIPs: [{service}]\n  selector: {{app: {name}}}\n  \
             ports: [{{name: lines, port: {LINES}, targetPort: {LINES}}}, {{name: short, port: 70, targetPort: {LINES}}}, \
             {{name: http, port: {HTTP}, targetPort: http}}]\n",
            uid = uid(name),
            probes = self.probes,
            ips = all.join(", "),
            service = self.service,
        )
    }
}

/// The cgroup of a pod as a kubelet names it: with systemd's driver, or with its own.
pub(super) fn kubernetes(number: u8, uid: &str) -> String {
    if number.is_multiple_of(2) {
        let uid = uid.replace('-', "_");
        format!("kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid}.slice")
    } else {
        format!("kubepods/besteffort/pod{uid}")
    }
}

pub(super) fn container(number: u8) -> String {
    let id = format!("{number:064x}");
    if number.is_multiple_of(2) { format!("cri-containerd-{id}.scope") } else { id }
}

/// A uid made of a name, of the form that Kubernetes gives.
#[must_use]
pub fn uid(name: &str) -> String {
    let sum = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{:08x}-0000-4000-8000-{:012x}", sum >> 32, sum & 0xffff_ffff)
}
