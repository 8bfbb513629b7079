//! Every limit by name, with its default (invariant 8).

use schemars::JsonSchema;
use serde::Deserialize;

/// `limits:` of the settings file. Sizes in bytes, times in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limits {
    /// Request head: request line and headers together. More: 431.
    pub head_bytes: usize,
    /// Headers in a request. More: 431.
    pub header_count: usize,
    /// Request body. More: 413.
    pub request_body_bytes: u64,
    /// HTTP/2 streams open at once on a connection.
    pub concurrent_streams: u32,
    /// Tunnels open at once on an HBONE connection. Where we are called each counts among the connections, too.
    pub tunnels_per_connection: u32,
    /// How often the peer of an HBONE connection is asked for a sign of life. Without one for twice as long
    /// the connection ends.
    pub tunnel_ping_ms: u64,
    /// Connections open at once, all listeners. More: closed at once.
    pub connections: usize,
    /// Connections open at once of one captured pod, both ways. More: reset at once.
    pub connections_per_pod: usize,
    /// Requests under way at once, whole proxy. More: 503.
    pub requests: usize,
    /// Requests under way at once for one workload. More: 503.
    pub requests_per_workload: usize,
    /// Tokens of one workload's callers whose signature fails: so many are answered each second at once, the
    /// answers to more wait for their turn (a second at most, 1,024 answers in all), so that a flood buys less of
    /// the time of others. 0: none wait.
    pub bad_signatures_per_second: u32,
    /// Head must be complete within this. Later: 408.
    pub head_timeout_ms: u64,
    /// The body may pause no longer than this. Longer: 408.
    pub body_idle_timeout_ms: u64,
    /// A connection without a request is closed after this.
    pub idle_timeout_ms: u64,
    /// TLS handshake.
    pub handshake_timeout_ms: u64,
    /// Connecting upstream. Later: 503.
    pub connect_timeout_ms: u64,
    /// Response head from upstream where no route says otherwise. Later: 504.
    pub response_timeout_ms: u64,
    /// The response body may pause no longer than this, whether the upstream stops sending or the client
    /// reading; then the exchange is reset.
    pub response_idle_timeout_ms: u64,
    /// Idle upstream connections kept per address.
    pub idle_upstreams: usize,
    /// Idle upstream connections are closed after this.
    pub upstream_idle_timeout_ms: u64,
    /// Requests waiting for an upstream connection, per address. More: 503.
    pub pending_per_upstream: usize,
    /// Open upgraded (WebSocket) connections may pause no longer than this.
    pub upgrade_idle_timeout_ms: u64,
    /// On SIGTERM: requests under way may take this long to end.
    pub drain_timeout_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: 60 * 1024,
            header_count: 100,
            request_body_bytes: 64 * 1024 * 1024,
            concurrent_streams: 100,
            tunnels_per_connection: 100,
            tunnel_ping_ms: 10_000,
            connections: 20_000,
            connections_per_pod: 10_000,
            requests: 10_000,
            requests_per_workload: 5_000,
            bad_signatures_per_second: 200,
            head_timeout_ms: 10_000,
            body_idle_timeout_ms: 60_000,
            idle_timeout_ms: 300_000,
            handshake_timeout_ms: 10_000,
            connect_timeout_ms: 5_000,
            response_timeout_ms: 60_000,
            response_idle_timeout_ms: 300_000,
            idle_upstreams: 128,
            upstream_idle_timeout_ms: 60_000,
            pending_per_upstream: 1_024,
            upgrade_idle_timeout_ms: 3_600_000,
            drain_timeout_ms: 30_000,
        }
    }
}

/// A limit that was exceeded; its `name` is the metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Exceeded {
    /// 431
    HeadBytes,
    /// 431
    HeaderCount,
    /// 413
    RequestBodyBytes,
    /// 408
    HeadTimeout,
    /// 408
    BodyIdleTimeout,
    /// 503
    Requests,
    /// 503
    RequestsPerWorkload,
}

impl Exceeded {
    /// Name of the limit in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::HeadBytes => "head_bytes",
            Self::HeaderCount => "header_count",
            Self::RequestBodyBytes => "request_body_bytes",
            Self::HeadTimeout => "head_timeout",
            Self::BodyIdleTimeout => "body_idle_timeout",
            Self::Requests => "requests",
            Self::RequestsPerWorkload => "requests_per_workload",
        }
    }
}
