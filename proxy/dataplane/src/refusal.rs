//! Why a request is not forwarded, or its answer not given: one type, read by `reply` and `record`.

use std::time::Duration;

use http::StatusCode;
use identity::Rejection;
use policy::{Decision, target::TargetError};

/// Why a request ends here.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Refusal {
    /// Layer 4 said no after all (a policy changed under a live connection): the connection is dropped.
    #[error(transparent)]
    Dropped(#[from] crate::admit::AdmitError),
    /// Malformed or ambiguous head.
    #[error("malformed request: {0}")]
    Malformed(&'static str),
    /// Refused target or method override.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// A limit of ours, by its metric name.
    #[error("limit {0:?}")]
    Limit(crate::limits::Exceeded),
    /// Credentials.
    #[error(transparent)]
    Credentials(#[from] Rejection),
    /// Policy.
    #[error("denied by policy")]
    Denied(Box<Decision>),
    /// The gateway has no route.
    #[error("no route")]
    NoRoute,
    /// The route has no usable destination.
    #[error("no destination")]
    NoDestination(StatusCode),
    /// The gateway answers by itself: redirect, direct response, preflight, fault.
    #[error("answered by the route")]
    Answered(Box<RouteAnswer>),
    /// Upstream fault.
    #[error(transparent)]
    Upstream(#[from] UpstreamFault),
    /// A bug of ours: a bare 500.
    #[error("internal error: {0}")]
    Internal(&'static str),
}

/// An answer the route itself gives.
#[derive(Debug, Clone)]
pub struct RouteAnswer {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: Vec<(http::HeaderName, http::HeaderValue)>,
    /// Body.
    pub body: String,
    /// Wait first.
    pub delay: Option<Duration>,
}

/// Faults of the upstream, told apart in status, body, flags and metric (Envoy's words).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum UpstreamFault {
    /// Connect refused or failed: 503, `UF`.
    #[error("upstream connect error or disconnect/reset before headers. reset reason: remote connection failure")]
    ConnectFailed,
    /// Connect took too long: 503, `UF`.
    #[error("upstream connect error or disconnect/reset before headers. reset reason: connection timeout")]
    ConnectTimeout,
    /// Closed or reset before the response head: 502? The owner of reply decides by Envoy's behaviour.
    #[error("upstream connect error or disconnect/reset before headers. reset reason: connection termination")]
    ClosedBeforeHead,
    /// The response is not HTTP: 502, `UPE`.
    #[error("upstream connect error or disconnect/reset before headers. reset reason: protocol error")]
    Protocol,
    /// No response in time: 504, `UT`.
    #[error("upstream request timeout")]
    Timeout,
    /// Pool and pending limits: 503, `UO`.
    #[error("upstream connect error or disconnect/reset before headers. reset reason: overflow")]
    Overflow,
}
