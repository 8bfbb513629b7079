//! What is known of a captured connection beside the facts that every connection has.

use std::{net::SocketAddr, sync::Arc};

use http::{Method, Version, request::Parts};
use mesh::{Probe, ProbeKind};
use policy::WorkloadName;

use crate::{forward::Door, serve::Drain};

/// The one gRPC method that kubelet calls (gRPC health checking protocol).
const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";

/// See the module.
#[derive(Debug)]
pub(crate) struct Captured {
    /// The way to the application.
    pub(crate) door: Arc<Door>,
    /// Of the pod: it drains when the pod is released.
    pub(crate) drain: Arc<Drain>,
    pub(crate) who: Who,
}

/// Who calls.
#[derive(Debug)]
pub(crate) enum Who {
    /// A captured pod of this node, named by the network namespace that its socket is in.
    Pod(WorkloadName),
    /// The node itself, at a port with probes.
    Prober(Prober),
    /// Anybody else.
    Outsider,
}

impl Captured {
    /// The pod that calls, by the kernel's word.
    pub(crate) fn caller(&self) -> Option<&WorkloadName> {
        match &self.who {
            Who::Pod(name) => Some(name),
            Who::Prober(_) | Who::Outsider => None,
        }
    }

    /// Whether requests may come that are declared probes.
    pub(crate) fn prober(&self) -> Option<&Prober> {
        match &self.who {
            Who::Prober(prober) => Some(prober),
            Who::Pod(_) | Who::Outsider => None,
        }
    }

    /// Whether this request is a declared probe.
    pub(crate) fn probe(&self, head: &Parts) -> Option<DeclaredProbe> {
        self.prober()?.probe(head)
    }
}

/// The node, calling a port for which probes are declared: so many of its requests pass, and no more.
#[derive(Debug)]
pub(crate) struct Prober {
    /// Of this port.
    probes: Vec<Probe>,
}

/// A request that is a declared probe. One maker: [`Prober::probe`].
#[derive(Debug)]
pub(crate) struct DeclaredProbe(());

impl Prober {
    /// The node's caller at a port with these probes; none: it is a caller as any other.
    pub(super) fn new(probes: Vec<Probe>) -> Option<Self> {
        (!probes.is_empty()).then_some(Self { probes })
    }

    fn probe(&self, head: &Parts) -> Option<DeclaredProbe> {
        let target = head.uri.path_and_query().map(http::uri::PathAndQuery::as_str)?;
        let is = |probe: &Probe| match &probe.kind {
            ProbeKind::Http { path } => head.method == Method::GET && path == target,
            ProbeKind::Grpc => {
                head.method == Method::POST && head.version == Version::HTTP_2 && target == HEALTH_CHECK
            }
            ProbeKind::Tcp => false,
        };
        self.probes.iter().any(is).then_some(DeclaredProbe(()))
    }
}

/// The node, where the operator lets all of its traffic pass. One maker: [`super::inbound`].
#[derive(Debug)]
pub(crate) struct HostConnection(pub(super) SocketAddr);

impl HostConnection {
    /// The address that it called.
    pub(crate) fn address(&self) -> SocketAddr {
        self.0
    }
}
