//! One exchange without a socket: `fhirward test` and `fhirward explain`. The decision is
//! [`Engine::explain`], the live code with its steps kept; only the codec and the upstream are
//! played here: the head is built as hyper builds it, and the upstream's answer is given.

mod head;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, Version, response};
use observe::Record;
use policy::Step;

use crate::{Engine, accept::Connection, authorize::Permitted, engine::Refused, judge, record, reply};

/// A request and what the upstream would answer.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// Who calls what.
    pub connection: Connection,
    /// Method as written.
    pub method: String,
    /// Raw request target, as written.
    pub target: String,
    /// `HTTP_11` or `HTTP_2`.
    pub version: Version,
    /// Headers in order; one entry per value.
    pub headers: Vec<(String, String)>,
    /// `Host` where `headers` has none; `None` sends none.
    pub default_host: Option<String>,
    /// Request body.
    pub body: Bytes,
    /// What the upstream would answer.
    pub answer: Response<Bytes>,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct OfflineOutcome {
    /// What was decided.
    pub verdict: OfflineVerdict,
    /// Status that the client sees; `None` when the connection is dropped.
    pub status: Option<StatusCode>,
    /// Body that the client sees.
    pub body: Bytes,
    /// Headers that the client sees.
    pub headers: HeaderMap,
    /// The rule that decided: `ns[..]-policy[..]-rule[..]`.
    pub rule: Option<String>,
    /// The explanation as data.
    pub steps: Vec<Step>,
    /// The explanation as lines; the last says what came of it.
    pub reasons: Vec<String>,
    /// What reached the upstream, if anything did.
    pub forwarded: Option<Forwarded>,
    /// The record as the tellers would get it.
    pub record: Box<Record>,
}

/// Verdict of an offline run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfflineVerdict {
    /// It went to the upstream, or the route answered it without an error (redirect, preflight).
    Allow,
    /// An answer says no.
    Deny,
    /// Refused at connection level: no answer.
    Drop,
}

/// What reached the upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forwarded {
    /// Method.
    pub method: String,
    /// Canonical target: path and query.
    pub path: String,
    /// Headers, `host` among them.
    pub headers: HeaderMap,
}

/// Runs one HTTP exchange.
pub async fn run(engine: &Engine, exchange: Exchange) -> OfflineOutcome {
    let Exchange { connection, method, target, version, headers, default_host, body, answer } = exchange;
    let written = head::Written { method, target, version, headers, default_host, body: &body };
    let Some(parts) = head::parse(written, connection.tls) else {
        return unparsed(&connection, version);
    };
    match engine.explain(&connection, parts).await {
        (Ok(permitted), steps) => permitted_outcome(permitted, answer, steps),
        (Err(refused), steps) => refused_outcome(*refused, steps),
    }
}

/// Runs one raw TCP connection.
#[must_use]
pub fn run_tcp(engine: &Engine, connection: &Connection) -> OfflineOutcome {
    match engine.explain_tcp(connection) {
        (Err(refused), steps) => refused_outcome(*refused, steps),
        (Ok(permitted), steps) => OfflineOutcome {
            verdict: OfflineVerdict::Allow,
            status: None,
            body: Bytes::new(),
            headers: HeaderMap::new(),
            rule: permitted.decision().and_then(|decision| decision.rule.as_deref().map(str::to_owned)),
            reasons: lines(&steps, None),
            steps,
            forwarded: None,
            record: record::begin(connection, Version::HTTP_11),
        },
    }
}

fn permitted_outcome(permitted: Permitted, answer: Response<Bytes>, steps: Vec<Step>) -> OfflineOutcome {
    let Permitted { method, target, headers, response_headers, cors, mut story, .. } = permitted;
    let (head, body) = answer.into_parts();
    let head = judge::release(head, response_headers.as_deref(), &cors).into_parts();
    record::released(&mut story, &head);
    let response::Parts { status, headers: response_headers, .. } = head;
    OfflineOutcome {
        verdict: OfflineVerdict::Allow,
        status: Some(status),
        body,
        headers: response_headers,
        rule: rule(&story),
        reasons: lines(&steps, None),
        steps,
        forwarded: Some(Forwarded {
            method: method.as_str().to_owned(),
            path: target.path_and_query(),
            headers,
        }),
        record: story,
    }
}

fn refused_outcome(refused: Refused, steps: Vec<Step>) -> OfflineOutcome {
    let Refused { refusal, reply, mut story } = refused;
    let reasons = lines(&steps, Some(&refusal.to_string()));
    if refusal.drops_connection() {
        return OfflineOutcome {
            verdict: OfflineVerdict::Drop,
            status: None,
            body: Bytes::new(),
            headers: HeaderMap::new(),
            rule: rule(&story),
            reasons,
            steps,
            forwarded: None,
            record: story,
        };
    }
    let response = reply::render(&refusal, &reply);
    record::answered(&mut story, &response);
    let (head, body) = response.into_parts();
    let refusing = refusal.is_error() || head.status.is_client_error() || head.status.is_server_error();
    OfflineOutcome {
        verdict: if refusing { OfflineVerdict::Deny } else { OfflineVerdict::Allow },
        status: Some(head.status),
        body,
        headers: head.headers,
        rule: rule(&story),
        reasons,
        steps,
        forwarded: None,
        record: story,
    }
}

/// A head that no codec of ours reads: hyper answers 400 without a body.
fn unparsed(connection: &Connection, version: Version) -> OfflineOutcome {
    let mut story = record::begin(connection, version);
    story.status = Some(StatusCode::BAD_REQUEST.as_u16());
    story.refused = Some("malformed");
    OfflineOutcome {
        verdict: OfflineVerdict::Deny,
        status: Some(StatusCode::BAD_REQUEST),
        body: Bytes::new(),
        headers: HeaderMap::new(),
        rule: None,
        steps: Vec::new(),
        reasons: vec!["malformed request: the head cannot be parsed".to_owned()],
        forwarded: None,
        record: story,
    }
}

fn rule(story: &Record) -> Option<String> {
    story.decision.as_ref()?.rule.as_deref().map(str::to_owned)
}

fn lines(steps: &[Step], end: Option<&str>) -> Vec<String> {
    steps.iter().map(Step::to_string).chain(end.map(str::to_owned)).collect()
}
