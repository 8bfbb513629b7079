//! How the proxy in front of a destination is spoken to: who is behind an address, and whether by HBONE,
//! by mTLS as Istio's sidecars speak it, or as it is.
//!
//! The marks are Istio's (istiod gives its proxies the same by `setTunnelProtocol`): the label
//! `networking.istio.io/tunnel` and the annotation `ambient.istio.io/redirection` stand for HBONE, the label
//! `security.istio.io/tlsMode: istio`, which the injector gives, for mTLS. A pod of the mesh without any
//! of them is one of a node of ours, which speaks HBONE.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use policy::{Problem, SpiffeId, istio::MtlsMode};

use super::{
    Snapshot, Workload,
    drafts::{Drafts, is_made_up, setting},
};
use crate::settings::{MeshSettings, TunnelKind, TunnelSettings};

/// Port of HBONE in a pod (Istio's ztunnel).
pub const HBONE_PORT: u16 = 15008;

const TUNNEL_LABEL: &str = "networking.istio.io/tunnel";
const REDIRECTION: &str = "ambient.istio.io/redirection";
const TLS_MODE_LABEL: &str = "security.istio.io/tlsMode";

type Texts = BTreeMap<String, String>;

/// How an address is reached.
#[derive(Debug, Clone)]
pub enum Toward {
    /// As it is: nobody of the mesh is there, or takes nothing else.
    Plain,
    /// With the caller's identity, and only if this workload's is shown.
    Tunnel(Tunnel),
    /// It is that of several workloads, some of them in the mesh, or of another than the one that was meant:
    /// whom to expect is not known.
    Contested,
}

/// A destination that is reached with the caller's identity.
#[derive(Debug, Clone)]
pub struct Tunnel {
    /// Whose identity must be shown there.
    pub workload: Arc<Workload>,
    /// How.
    pub way: TunnelWay,
    /// The address meant: of the workload's pod, and the container port.
    pub to: SocketAddr,
}

/// How a tunnel is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TunnelWay {
    /// HTTP/2 CONNECT over mutual TLS, at this address.
    Hbone(SocketAddr),
    /// Mutual TLS, at the address itself.
    Sidecar,
}

impl Tunnel {
    /// The identity that must be shown.
    #[must_use]
    pub fn expected(&self) -> &SpiffeId {
        &self.workload.identity
    }
}

impl Snapshot {
    /// How an address is to be reached. `meant` is the workload that the caller was led to, where it was
    /// led there by a Service or a route: what was judged for one is handed to no other that has its address.
    #[must_use]
    pub fn toward(&self, to: SocketAddr, meant: Option<&Arc<Workload>>) -> Toward {
        let ip = to.ip().to_canonical();
        let to = SocketAddr::new(ip, to.port());
        let contested = |speak: bool| if speak { Toward::Contested } else { Toward::Plain };
        if self.workloads.contested.contains(&ip) && !ip.is_loopback() {
            let claims = |workload: &&Arc<Workload>| workload.claims(ip);
            return contested(self.workloads().filter(claims).any(|workload| workload.way(to).is_some()));
        }
        // A loopback address is everybody's on the host.
        let owner = self.workload_at(ip).filter(|_| meant.is_none() || !ip.is_loopback());
        if let (Some(owner), Some(meant)) = (owner, meant)
            && owner.name != meant.name
        {
            return contested(owner.way(to).is_some() || meant.way(to).is_some());
        }
        let Some(workload) = owner.or(meant) else { return Toward::Plain };
        match workload.way(to) {
            Some(way) => Toward::Tunnel(Tunnel { workload: Arc::clone(workload), way, to }),
            None => Toward::Plain,
        }
    }
}

impl Workload {
    fn claims(&self, ip: IpAddr) -> bool {
        self.ip == ip || self.pods.iter().any(|pod| pod.ips.contains(&ip))
    }

    /// How the address of one of its ports is spoken to; `None`: as it is.
    fn way(&self, to: SocketAddr) -> Option<TunnelWay> {
        let way = match self.tunnel {
            Some(TunnelSettings { kind: TunnelKind::None, .. }) => return None,
            Some(TunnelSettings { kind: TunnelKind::Hbone, address }) => {
                TunnelWay::Hbone(address.unwrap_or(SocketAddr::new(to.ip(), HBONE_PORT)))
            }
            Some(TunnelSettings { kind: TunnelKind::Sidecar, .. }) => TunnelWay::Sidecar,
            None => self.marked(to)?,
        };
        // A sidecar that takes plaintext alone is told so by the same policy.
        let disabled = way == TunnelWay::Sidecar && self.policy.mtls_mode(to.port()) == MtlsMode::Disable;
        (!disabled).then_some(way)
    }

    /// By the marks of the pod that has the address; where it is the workload's by no Pod object, by its own.
    fn marked(&self, to: SocketAddr) -> Option<TunnelWay> {
        let (ip, hbone) = (to.ip(), TunnelWay::Hbone(SocketAddr::new(to.ip(), HBONE_PORT)));
        if let Some(pod) = self.pods.iter().find(|pod| pod.ips.contains(&ip)) {
            return way(&pod.labels, &pod.annotations, pod.enrolled, hbone);
        }
        // An address that the settings lead a port to is spoken to as they say, and its own host
        // is the node's or nobody's.
        let led = self.upstream.values().any(|address| *address == to);
        // No proxy can stand in front of pods on the node's network.
        let on_node = !self.pods.is_empty() && self.pods.iter().all(|pod| pod.host_network);
        if led || on_node || self.ip != ip || ip.is_loopback() || is_made_up(ip) {
            return None;
        }
        way(&self.labels, &self.annotations, self.enrolled, hbone)
    }
}

/// What labels and annotations say. An explicit mark of HBONE wins over an injected sidecar, which wins
/// over enrolment.
fn way(labels: &Texts, annotations: &Texts, enrolled: bool, hbone: TunnelWay) -> Option<TunnelWay> {
    let tunnels = labels.get(TUNNEL_LABEL).is_some_and(|kinds| kinds.split(',').any(|kind| kind == "http"));
    let redirected = annotations.get(REDIRECTION).is_some_and(|value| value == "enabled");
    if tunnels || redirected {
        return Some(hbone);
    }
    if labels.get(TLS_MODE_LABEL).is_some_and(|mode| mode == "istio") {
        return Some(TunnelWay::Sidecar);
    }
    enrolled.then_some(hbone)
}

/// Adds what the settings say of workloads' tunnels.
pub(super) fn merge(drafts: &mut Drafts, settings: &MeshSettings, problems: &mut Vec<Problem>) {
    for (name, tunnel) in &settings.tunnels {
        let field = format!("mesh.tunnels.{name}");
        let known = name.parse().ok().and_then(|name| drafts.get_mut(&name));
        let Some(draft) = known else {
            let text = format!("no workload `{name}` is in the manifests or settings");
            problems.push(setting(&field, text));
            continue;
        };
        if let Err(text) = tunnel.check() {
            problems.push(setting(&field, text.to_owned()));
            continue;
        }
        draft.tunnel = Some(*tunnel);
    }
}
