//! The question to every policy family, and [`Permitted`], which only this room makes.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::{HeaderMap, Method};
use mesh::routing::{HeaderEdits, RetryPolicy};
use observe::Record;
use policy::target::CanonicalTarget;

/// A request that every family lets pass, in the form that was judged. Private fields, one maker.
#[derive(Debug)]
pub struct Permitted {
    pub(crate) method: Method,
    pub(crate) target: CanonicalTarget,
    /// Host to send upstream.
    pub(crate) authority: String,
    /// Headers after every edit, hop-by-hop ones removed, `x-forwarded-*` set.
    pub(crate) headers: HeaderMap,
    /// Where to connect.
    pub(crate) upstream: SocketAddr,
    /// The protocol upgrade asked for (`websocket`), if any.
    pub(crate) upgrade: Option<String>,
    /// Limit of the whole exchange (route's `timeout`); `None`: the limits' response timeout.
    pub(crate) timeout: Option<Duration>,
    pub(crate) retries: Option<RetryPolicy>,
    /// Wait before forwarding (`fault.delay`).
    pub(crate) delay: Option<Duration>,
    pub(crate) response_headers: Option<Arc<HeaderEdits>>,
    /// Added to the response (CORS).
    pub(crate) cors: Vec<(http::HeaderName, http::HeaderValue)>,
    /// What is known so far for the record.
    pub(crate) story: Record,
}
