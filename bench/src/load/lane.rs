//! What a load is made of, and what came of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::http2;
use super::schedule::Schedule;
use super::secure::Tls;

/// Longest latency that is told apart, in nanoseconds: a minute.
const LONGEST: u64 = 60_000_000_000;
/// Three significant digits.
const DIGITS: u8 = 3;

/// How requests travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, one request at a time on a connection.
    Http1,
    /// HTTP/2 with prior knowledge (RFC 9113 section 3.3).
    Http2,
    /// HTTP/1.1 in tunnels of HBONE to this port of the target's address: a connection's streams are
    /// CONNECTs of HTTP/2 that are open before the load begins, with one request at a time in each.
    Hbone(u16),
}

/// When requests leave.
#[derive(Debug, Clone)]
pub enum Pacing {
    /// As soon as an earlier one is answered: what the peer can do at most.
    Closed,
    /// At moments fixed in advance. Latency counts from these, whether or not a connection was free.
    Open(Arc<Schedule>),
    /// One request on each connection, which then stays open and idle.
    Once,
}

/// Requests that share target, pace and expectation.
#[derive(Debug, Clone)]
pub struct Lane {
    /// Where the peer listens.
    pub target: SocketAddr,
    /// How requests travel.
    pub protocol: Protocol,
    /// What their connections are secured by.
    pub tls: Option<Arc<Tls>>,
    /// Connections held open.
    pub connections: usize,
    /// Requests under way at once on a connection; 1 for HTTP/1.1.
    pub streams: usize,
    /// When requests leave.
    pub pacing: Pacing,
    /// What they say.
    pub requests: Requests,
    /// The only status that is right.
    pub expect: u16,
}

/// Requests, written out in advance but for their tokens.
#[derive(Debug, Clone)]
pub enum Requests {
    /// The same bytes each time: a whole HTTP/1.1 message (tunnels too), or a header block of HTTP/2.
    Same(Arc<[u8]>),
    /// The same but for the token.
    Fresh(Fresh),
}

/// A request for each of many tokens.
#[derive(Debug, Clone)]
pub struct Fresh {
    /// The head without token and without its empty line.
    pub before: Arc<[u8]>,
    /// The tokens, in the order of their use.
    pub tokens: Arc<[Box<[u8]>]>,
    /// The next one.
    pub next: usize,
    /// The one that is no more to be used.
    pub end: usize,
    /// Begin again after the last one (bad tokens, which nobody remembers).
    pub again: bool,
}

impl Fresh {
    /// Appends the next request; `false` when there is none any more.
    pub(super) fn write(&mut self, protocol: Protocol, out: &mut Vec<u8>) -> bool {
        if self.next >= self.end && self.again {
            self.next = 0;
        }
        let Some(token) = self.tokens.get(self.next).filter(|_| self.next < self.end) else { return false };
        self.next += 1;
        out.extend_from_slice(&self.before);
        match protocol {
            Protocol::Http1 | Protocol::Hbone(_) => {
                out.extend_from_slice(b"authorization: Bearer ");
                out.extend_from_slice(token);
                out.extend_from_slice(b"\r\n\r\n");
            }
            Protocol::Http2 => http2::add_bearer(out, token),
        }
        true
    }
}

/// What came of a lane.
#[derive(Debug, Clone)]
pub struct Report {
    /// Whole answers, whatever their status.
    pub answered: u64,
    /// Answers of another status than expected.
    pub unexpected: BTreeMap<u16, u64>,
    /// Requests without a whole answer, and connections that could not be made, by why.
    pub failed: BTreeMap<String, u64>,
    /// From the start to the last answer.
    pub elapsed: Duration,
    /// Nanoseconds from when a request was due to the end of its answer.
    pub latency: Histogram<u64>,
    /// Arrivals that were due and could not be sent before the run was given up.
    pub unsent: u64,
}

impl Report {
    pub(super) fn new() -> Result<Self, hdrhistogram::CreationError> {
        Ok(Self {
            answered: 0,
            unexpected: BTreeMap::new(),
            failed: BTreeMap::new(),
            elapsed: Duration::ZERO,
            latency: Histogram::new_with_bounds(1, LONGEST, DIGITS)?,
            unsent: 0,
        })
    }

    pub(super) fn answer(&mut self, status: u16, expect: u16, due: Instant, now: Instant) {
        self.answered += 1;
        if status != expect {
            *self.unexpected.entry(status).or_insert(0) += 1;
        }
        let took = u64::try_from(now.saturating_duration_since(due).as_nanos()).unwrap_or(LONGEST);
        self.latency.saturating_record(took.max(1));
    }

    pub(super) fn fail(&mut self, why: &str, requests: u64) {
        *self.failed.entry(why.to_owned()).or_insert(0) += requests;
    }

    /// Says what is wrong, where anything is: such a run measures something else than it claims.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        let mut said = Vec::new();
        if self.answered == 0 {
            said.push("no request was answered".to_owned());
        }
        said.extend(self.unexpected.iter().map(|(status, count)| format!("{count} answers with {status}")));
        said.extend(self.failed.iter().map(|(why, count)| format!("{count} failed: {why}")));
        if self.unsent > 0 {
            said.push(format!("{} arrivals never sent", self.unsent));
        }
        (!said.is_empty()).then(|| said.join(", "))
    }

    /// The latency in milliseconds that so many percent of the requests kept within.
    #[must_use]
    #[allow(clippy::cast_precision_loss)]
    pub fn percentile(&self, percent: f64) -> f64 {
        self.latency.value_at_quantile(percent / 100.0) as f64 / 1e6
    }

    /// The longest latency, in milliseconds.
    #[must_use]
    #[allow(clippy::cast_precision_loss)]
    pub fn longest(&self) -> f64 {
        self.latency.max() as f64 / 1e6
    }
}
