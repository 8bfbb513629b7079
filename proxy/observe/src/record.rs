//! The whole story of one request, once: every teller (metrics, access log, later flows and audit)
//! reads this and nothing else.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use policy::{Decision, Step};

/// The whole story of one request.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// Our id for it (`x-request-id`).
    pub request_id: String,
    /// Snapshot that judged it.
    pub snapshot: u64,
    /// The caller.
    pub source: Party,
    /// The workload it was for.
    pub destination: Party,
    /// Service it was addressed to.
    pub service: Service,
    /// `http`, `grpc` or `tcp`.
    pub protocol: Protocol,
    /// `HTTP/1.1`, `HTTP/2`.
    pub http_version: &'static str,
    /// Method as sent.
    pub method: String,
    /// Canonical path, without query. Redacted by the access log unless asked otherwise.
    pub path: String,
    /// Query; logged only where asked for in so many words.
    pub query: Option<String>,
    /// Host as sent.
    pub authority: String,
    /// FHIR interaction (`read`, `create`…) and resource type, where the workload serves FHIR.
    pub interaction: Option<(&'static str, Option<&'static str>)>,
    /// Status told to the client; `None` when the connection was dropped unanswered.
    pub status: Option<u16>,
    /// gRPC status of the answer, if gRPC.
    pub grpc_status: Option<u16>,
    /// Envoy's response flags (`-`, `UF`, `UT`, `URX`, `DC`, `UAEX`, `NR`, `DPE`, `UO`…).
    pub flags: &'static str,
    /// Envoy's response code details or ours (`via_upstream`, `rbac_access_denied_matched_policy[..]`, `limit_head_size`).
    pub details: String,
    /// Which limit or check of ours refused it, for the metric (`head_size`, `body_size`, `target_matrix_parameter`…).
    pub refused: Option<&'static str>,
    /// The policies' decision, where it came so far.
    pub decision: Option<Decision>,
    /// Steps behind a denial, where kept.
    pub steps: Vec<Step>,
    /// Issuer of the verified token, and the outcome of the token check (`ok`, `none`, `expired`…).
    pub issuer: Option<Arc<str>>,
    /// Outcome of the token check.
    pub token: &'static str,
    /// Route taken at the gateway.
    pub route: Option<Arc<str>>,
    /// Address connected to.
    pub upstream: Option<SocketAddr>,
    /// From the first byte of the head to the last of the response.
    pub duration: Duration,
    /// Until the decision: our own time.
    pub decided_after: Duration,
    /// Bytes of request and response: heads are not counted.
    pub request_bytes: u64,
    /// Bytes of the response body.
    pub response_bytes: u64,
    /// gRPC messages, both ways.
    pub messages: (u64, u64),
    /// `mutual_tls` or `none`. A hop that never leaves the process counts as the former.
    pub mutual_tls: bool,
    /// The caller's identity is the kernel's word (a captured pod of this node), not a certificate's.
    pub from_kernel: bool,
    /// `destination`, or `source` at the gateway.
    pub reporter: Reporter,
    /// Both ends are on this node, and nobody else reports the source's.
    pub both_sides: bool,
    /// A raw connection that was counted when it opened.
    pub opened: bool,
    /// Of its bytes (`request_bytes`, `response_bytes`), those that were counted while it lasted.
    pub counted_bytes: (u64, u64),
}

/// One side of the exchange, as far as known: Istio's labels.
#[derive(Debug, Clone, Default)]
pub struct Party {
    /// Address.
    pub address: Option<SocketAddr>,
    /// Workload, `None` where unknown.
    pub workload: Option<Arc<WorkloadLabels>>,
    /// SPIFFE id, verified.
    pub principal: Option<Arc<str>>,
}

/// Labels of a workload, computed once per snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct WorkloadLabels {
    /// Name.
    pub workload: String,
    /// Namespace.
    pub namespace: String,
    /// Label `app`.
    pub app: String,
    /// Label `version`.
    pub version: String,
    /// `service.istio.io/canonical-name`, else `app`, else the workload's name.
    pub canonical_service: String,
    /// `service.istio.io/canonical-revision`, else `version`, else `latest`.
    pub canonical_revision: String,
}

/// Service addressed.
#[derive(Debug, Clone, Default)]
pub struct Service {
    /// Full host (`fhir-service.datamesh.svc.cluster.local`), or the Host header's.
    pub host: Option<Arc<str>>,
    /// Service name.
    pub name: Option<Arc<str>>,
    /// Namespace.
    pub namespace: Option<Arc<str>>,
}

/// Protocol label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// HTTP.
    #[default]
    Http,
    /// gRPC.
    Grpc,
    /// Raw TCP.
    Tcp,
}

/// Reporter label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reporter {
    /// At the destination workload.
    #[default]
    Destination,
    /// At the gateway.
    Source,
}
