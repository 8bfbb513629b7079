//! Why a request is not forwarded, or its answer not given: one type, read by `reply` and `record`.

use std::time::Duration;

use http::StatusCode;
use identity::Rejection;
use policy::{Decision, target::TargetError};

use crate::{admit::AdmitError, limits::Exceeded, serve::head::HeadError};

/// Why a request ends here.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Refusal {
    /// Layer 4 said no after all (a policy changed under a live connection): the connection is
    /// dropped, see [`Refusal::drops_connection`].
    #[error(transparent)]
    Dropped(#[from] AdmitError),
    /// Malformed framing or body, found by the codec's side; 400.
    #[error("malformed request: {0}")]
    Malformed(&'static str),
    /// Malformed or ambiguous head.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// Refused target or method override.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// A limit of ours, by its metric name.
    #[error("limit {} exceeded", .0.name())]
    Limit(Exceeded),
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

impl Refusal {
    /// Whether the connection ends without any answer.
    #[must_use]
    pub fn drops_connection(&self) -> bool {
        matches!(self, Self::Dropped(_))
    }

    /// Whether an HTTP/1 connection ends with the answer: what follows an ambiguous head may be part
    /// of it.
    #[must_use]
    pub fn ends_connection(&self) -> bool {
        matches!(self, Self::Malformed(_) | Self::Head(_) | Self::Target(_) | Self::Internal(_))
    }

    /// Whether it says no; a route's own answer (redirect, preflight) need not.
    #[must_use]
    pub fn is_error(&self) -> bool {
        !matches!(self, Self::Answered(_))
    }
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
    /// Wait first (the server side waits; `reply` only words the answer).
    pub delay: Option<Duration>,
    /// Envoy's response code details (`direct_response`, `fault_filter_abort`, `cors_response`).
    pub details: &'static str,
}

/// Faults of the upstream, told apart in status, body, flags and metric (Envoy's words).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum UpstreamFault {
    /// Connect refused or failed: 503, `UF`.
    #[error(
        "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure"
    )]
    ConnectFailed,
    /// Connect took too long: 503, `UF`.
    #[error("upstream connect error or disconnect/reset before headers. reset reason: connection timeout")]
    ConnectTimeout,
    /// Closed or reset before the response head: 503, `UC`.
    #[error(
        "upstream connect error or disconnect/reset before headers. reset reason: connection termination"
    )]
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
    /// The way there with the caller's identity could not be had: 503, `UF`.
    #[error(
        "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure"
    )]
    Tunnel(#[from] TunnelFault),
}

/// Why a destination could not be reached with the caller's identity. It is never reached without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum TunnelFault {
    /// The TLS handshake: no certificate of our own, or why the peer was not believed.
    #[error("{0}")]
    Handshake(&'static str),
    /// The address is that of several workloads: whom to expect is not known.
    #[error("contested_address")]
    Contested,
    /// The tunnel would lead to this proxy itself.
    #[error("own_listener")]
    Loop,
    /// The peer does not speak HBONE as it should.
    #[error("tunnel_protocol")]
    Protocol,
    /// The peer closed the connection.
    #[error("tunnel_closed")]
    Closed,
    /// No answer in time.
    #[error("tunnel_timeout")]
    Silent,
    /// The connection was ended because the peer, or we, are verified no longer.
    #[error("{0}")]
    Unverified(&'static str),
    /// 401: the destination's policy denies it.
    #[error("policy_denied")]
    Denied,
    /// 400: the destination refuses the tunnel itself.
    #[error("tunnel_refused")]
    Refused,
    /// 503: the application is not reached behind the tunnel.
    #[error("tunnel_unreached")]
    Unreached,
    /// Another answer than 200.
    #[error("tunnel_answer_{0}")]
    Answer(u16),
}

impl TunnelFault {
    /// What an answer to CONNECT means (ztunnel's statuses).
    pub(crate) fn of(status: u16) -> Self {
        match status {
            401 => Self::Denied,
            400 => Self::Refused,
            503 => Self::Unreached,
            other => Self::Answer(other),
        }
    }
}
