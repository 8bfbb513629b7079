//! What a proxy did with a request, and in what two proxies differ.

use std::collections::{BTreeMap, BTreeSet};

use super::wire::{Recorded, Reply, WireError};

/// Headers that frame a message on one connection, and the clock's.
const FRAMING: [&str; 5] = ["date", "content-length", "connection", "transfer-encoding", "keep-alive"];

/// What a proxy did with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum View {
    /// It reached the upstream, and the upstream's answer came back.
    Forwarded(Recorded, Reply),
    /// The proxy answered.
    Answered(Reply),
    /// The connection or the stream was closed.
    Dropped,
}

/// What is decided, without its details.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Forwarded.
    Forwarded,
    /// Answered with a status.
    Status(u16),
    /// Neither.
    Dropped,
}

/// One thing in which two proxies differ; each has Envoy's first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delta {
    /// What is decided. Nothing else is then compared.
    Verdict(Verdict, Verdict),
    /// The body of an answer.
    Body(Vec<u8>, Vec<u8>),
    /// A header of an answer: its values.
    AnswerHeader(String, Vec<Vec<u8>>, Vec<Vec<u8>>),
    /// The method forwarded.
    Method(String, String),
    /// The target forwarded.
    Target(String, String),
    /// The body forwarded.
    ForwardedBody(Vec<u8>, Vec<u8>),
    /// A header forwarded: its values.
    Header(String, Vec<Vec<u8>>, Vec<Vec<u8>>),
}

impl View {
    /// What came of an exchange.
    ///
    /// # Errors
    /// Where it says nothing about the request: [`WireError::Broken`].
    pub fn of(outcome: Result<Reply, WireError>) -> Result<Self, WireError> {
        match outcome {
            Ok(reply) => Ok(match Recorded::of(&reply) {
                Some(recorded) => Self::Forwarded(recorded, Reply { body: Vec::new(), ..reply }),
                None => Self::Answered(reply),
            }),
            Err(WireError::Closed(_)) => Ok(Self::Dropped),
            Err(broken) => Err(broken),
        }
    }

    /// What is decided.
    #[must_use]
    pub const fn verdict(&self) -> Verdict {
        match self {
            Self::Forwarded(..) => Verdict::Forwarded,
            Self::Answered(reply) => Verdict::Status(reply.status),
            Self::Dropped => Verdict::Dropped,
        }
    }

    /// The body of an answer of the proxy's own.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        match self {
            Self::Answered(reply) => &reply.body,
            _ => &[],
        }
    }
}

/// Everything in which ours differs from Envoy's.
#[must_use]
pub fn deltas(envoy: &View, ours: &View) -> Vec<Delta> {
    let mut deltas = Vec::new();
    match (envoy, ours) {
        (View::Forwarded(envoy, reply), View::Forwarded(ours, our_reply)) => {
            forwarded(&mut deltas, envoy, ours);
            answer_headers(&mut deltas, reply, our_reply);
        }
        (View::Answered(envoy), View::Answered(ours)) if envoy.status == ours.status => {
            if envoy.body != ours.body {
                deltas.push(Delta::Body(envoy.body.clone(), ours.body.clone()));
            }
            answer_headers(&mut deltas, envoy, ours);
        }
        (View::Dropped, View::Dropped) => {}
        _ => deltas.push(Delta::Verdict(envoy.verdict(), ours.verdict())),
    }
    deltas
}

fn forwarded(deltas: &mut Vec<Delta>, envoy: &Recorded, ours: &Recorded) {
    if envoy.method != ours.method {
        deltas.push(Delta::Method(envoy.method.clone(), ours.method.clone()));
    }
    if envoy.target != ours.target {
        deltas.push(Delta::Target(envoy.target.clone(), ours.target.clone()));
    }
    if envoy.body != ours.body {
        deltas.push(Delta::ForwardedBody(envoy.body.clone(), ours.body.clone()));
    }
    for (name, envoy, ours) in headers(&envoy.headers, &ours.headers, &[]) {
        if name == "x-request-id" && made_up(&envoy) && made_up(&ours) {
            continue;
        }
        deltas.push(Delta::Header(name, envoy, ours));
    }
}

/// Whether it is one id in the form that both make where a request brings none.
fn made_up(values: &[Vec<u8>]) -> bool {
    matches!(values, [id] if id.len() == 36 && id.iter().filter(|byte| **byte == b'-').count() == 4)
}

fn answer_headers(deltas: &mut Vec<Delta>, envoy: &Reply, ours: &Reply) {
    for (name, envoy, ours) in headers(&envoy.headers, &ours.headers, &FRAMING) {
        if !name.starts_with("x-recorded-head") {
            deltas.push(Delta::AnswerHeader(name, envoy, ours));
        }
    }
}

type Values = Vec<Vec<u8>>;

/// The headers whose values differ. The order among several names means nothing.
fn headers(
    envoy: &[(String, Vec<u8>)],
    ours: &[(String, Vec<u8>)],
    without: &[&str],
) -> Vec<(String, Values, Values)> {
    let (envoy, ours) = (by_name(envoy), by_name(ours));
    let names: BTreeSet<&String> = envoy.keys().chain(ours.keys()).collect();
    let values = |side: &BTreeMap<String, Values>, name| side.get(name).cloned().unwrap_or_default();
    let both = names.into_iter().map(|name| (name.clone(), values(&envoy, name), values(&ours, name)));
    both.filter(|(name, envoy, ours)| envoy != ours && !without.contains(&name.as_str())).collect()
}

fn by_name(headers: &[(String, Vec<u8>)]) -> BTreeMap<String, Values> {
    let mut names: BTreeMap<String, Values> = BTreeMap::new();
    for (name, value) in headers {
        names.entry(name.clone()).or_default().push(value.clone());
    }
    names
}
