//! Where a request that enters at the gateway goes: Istio Gateway + VirtualService, Gateway API
//! HTTPRoute. (istio.io networking reference; gateway-api.sigs.k8s.io v1.)

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use crate::snapshot::Workload;

pub(crate) mod action;
pub(crate) mod api;
pub(crate) mod condition;
pub(crate) mod cors;
pub(crate) mod destination;
pub(crate) mod duration;
pub(crate) mod fault;
pub(crate) mod headers;
pub(crate) mod hosts;
pub(crate) mod istio;
pub(crate) mod redirect;
pub(crate) mod retry;
pub(crate) mod rewrite;
pub(crate) mod table;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod text;

/// Which gateway a listener is: the labels that `Gateway.spec.selector` must match (or the
/// Gateway API Gateway's name), and the Gateway's server port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GatewayKey {
    /// Labels of the gateway's pods (`istio: ingressgateway`).
    pub labels: std::collections::BTreeMap<String, String>,
    /// The port as the Gateway object names it (not the one really bound).
    pub port: u16,
}

/// What routing looks at.
#[derive(Debug, Clone, Copy)]
pub struct RouteQuery<'a> {
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Host with port, as sent.
    pub authority: &'a str,
    /// Method.
    pub method: &'a Method,
    /// Canonical path.
    pub path: &'a str,
    /// Query without `?`.
    pub query: Option<&'a str>,
    /// Headers.
    pub headers: &'a HeaderMap,
    /// A random number: decides between weighted destinations and percentages.
    pub dice: u64,
}

/// What routing says.
#[derive(Debug, Clone)]
pub enum Routed {
    /// No gateway server, host or route fits: 404.
    NotFound,
    /// Answer with a redirect.
    Redirect {
        /// 301, 302, 303, 307 or 308.
        status: StatusCode,
        /// `Location`.
        location: String,
    },
    /// Answer directly (VirtualService `directResponse`, `fault.abort`).
    Respond {
        /// Status.
        status: StatusCode,
        /// Body, may be empty.
        body: String,
        /// Wait first (`fault.delay`).
        delay: Option<Duration>,
    },
    /// A route without a usable destination: 503 (Istio), or 500 (HTTPRoute with invalid backendRefs).
    NoDestination {
        /// What to answer.
        status: StatusCode,
    },
    /// A CORS preflight that the route's policy answers.
    Preflight {
        /// Headers of the answer (200, Envoy's cors filter).
        headers: Vec<(HeaderName, HeaderValue)>,
    },
    /// Forward.
    Forward(Box<ForwardTo>),
}

/// A picked destination.
#[derive(Debug, Clone)]
pub struct ForwardTo {
    /// Name of the route for records (`VirtualService datamesh/fhir-server http[0]`).
    pub route: Arc<str>,
    /// Destination service host (`fhir-service.datamesh.svc.cluster.local`).
    pub host: Arc<str>,
    /// The server name by which Istio's proxies ask for that destination in mTLS; none where the route
    /// names no port.
    pub sni: Option<Arc<str>>,
    /// Where.
    pub destination: RouteDestination,
    /// New path, if rewritten.
    pub path: Option<String>,
    /// New authority, if rewritten.
    pub authority: Option<String>,
    /// Edits of the request's headers.
    pub request_headers: Arc<HeaderEdits>,
    /// Edits of the response's headers.
    pub response_headers: Arc<HeaderEdits>,
    /// CORS headers for the response to an allowed origin.
    pub cors: Vec<(HeaderName, HeaderValue)>,
    /// Limit for the whole exchange; `None`: none.
    pub timeout: Option<Duration>,
    /// Retries.
    pub retries: RetryPolicy,
    /// Wait before forwarding (`fault.delay`).
    pub delay: Option<Duration>,
}

/// Where a route leads.
#[derive(Debug, Clone)]
pub enum RouteDestination {
    /// A workload of the mesh and its container port: its policies hold.
    Workload {
        /// Which.
        workload: Arc<Workload>,
        /// Container port.
        port: u16,
    },
    /// Outside the mesh (ServiceEntry, or an address given in the settings): no policy of a destination.
    External {
        /// Address to connect to.
        address: SocketAddr,
    },
}

/// Header edits, in order remove, set, add.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// Removed.
    pub remove: Vec<HeaderName>,
    /// Replaced or created.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Appended.
    pub add: Vec<(HeaderName, HeaderValue)>,
}

/// Retries of an exchange. Only bodiless, not yet answered requests are retried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts beside the first.
    pub attempts: u32,
    /// Limit of each attempt.
    pub per_try_timeout: Option<Duration>,
    /// Conditions.
    pub on: RetryOn,
}

/// When to retry (Envoy's `retry_on` names).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RetryOn {
    /// `connect-failure`, `refused-stream`, `unavailable`, `cancelled`: nothing reached the application.
    pub connect_failure: bool,
    /// `reset`.
    pub reset: bool,
    /// `gateway-error`: 502, 503, 504.
    pub gateway_error: bool,
    /// `5xx`.
    pub server_error: bool,
    /// Status codes named one by one (`retriable-status-codes`).
    pub statuses: Vec<u16>,
}
