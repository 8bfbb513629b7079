//! The question to every policy family, and [`Permitted`], which only this room makes.

mod tcp;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use mesh::{
    Toward, Workload,
    routing::{HeaderEdits, RetryPolicy},
};
use observe::Record;
use policy::{
    Decision, Destination, Question, RequestFacts, Source, SpiffeId, Verdict, istio::WorkloadPolicy,
    target::CanonicalTarget,
};

use crate::{
    Refusal,
    capture::DeclaredProbe,
    classify::Classified,
    engine::Trace,
    forward::{Departure, Passage},
    identify::Identified,
    reply::{Grpc, ReplyContext},
    serve::head::{Onward, Request, RequestParts, WithTokens},
};

/// A request that every family lets pass, in the form that was judged. One maker: this room.
///
/// For `forward`: `headers` has no hop-by-hop header left, no `expect`, and its `host` equals
/// `authority` (HTTP/2 upstreams take `authority` as `:authority` and drop `host`); `te: trailers`
/// is there where the client takes trailers; `content-length` is the client's.
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
    /// The way there, where it leads into a captured pod.
    pub(crate) inside: Option<Passage>,
    /// The proxy of its own that the destination has.
    pub(crate) beyond: Option<Box<Beyond>>,
    /// The way there with the caller's identity.
    pub(crate) departure: Option<Departure>,
    /// The protocol upgrade asked for (`websocket`), if any.
    pub(crate) upgrade: Option<String>,
    /// Limit of the whole exchange (route's `timeout`); `None`: the limits' response timeout.
    pub(crate) timeout: Option<Duration>,
    pub(crate) retries: Option<RetryPolicy>,
    /// Wait before forwarding (`fault.delay`).
    pub(crate) delay: Option<Duration>,
    /// For `judge::release`.
    pub(crate) response_headers: Option<Arc<HeaderEdits>>,
    /// Added to the response (CORS): for `judge::release`.
    pub(crate) cors: Vec<(HeaderName, HeaderValue)>,
    /// The workload it is for (limits hold per workload); `None` outside the mesh.
    pub(crate) workload: Option<Arc<Workload>>,
    /// How to word an upstream fault or limit to this client: `reply::render(&refusal, &reply)`.
    pub(crate) reply: ReplyContext,
    /// What is known so far for the record.
    pub(crate) story: Box<Record>,
}

impl Permitted {
    /// Whether the upstream is spoken to in HTTP/2 (h2c by prior knowledge): gRPC needs it, other
    /// requests go as HTTP/1.1, which every FHIR server speaks.
    pub(crate) fn upstream_http2(&self) -> bool {
        self.reply.grpc == Grpc::Yes
    }
}

pub use tcp::PermittedTcp;
pub(crate) use tcp::{PermittedOutside, authorize_tcp, may_permit, pass_host, pass_outside, pass_own};

/// The caller as the policies of one workload see it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller<'a> {
    /// Direct peer.
    pub(crate) ip: IpAddr,
    /// Original client.
    pub(crate) remote_ip: IpAddr,
    /// Verified identity.
    pub(crate) identity: Option<&'a SpiffeId>,
    /// TLS server name it asked for.
    pub(crate) sni: Option<&'a str>,
    /// Whether the client's scheme is https.
    pub(crate) tls: bool,
    /// The pod's own address that it called, where it called a captured pod.
    pub(crate) called: Option<SocketAddr>,
}

impl<'a> Caller<'a> {
    pub(crate) fn with_identity(self, identity: Option<&'a SpiffeId>) -> Self {
        Self { identity, ..self }
    }

    fn source(self) -> Source<'a> {
        Source { ip: self.ip, remote_ip: self.remote_ip, identity: self.identity }
    }

    /// The workload's side of the connection, as policies see it.
    fn destination(self, workload: &Workload, port: u16) -> Destination<'a> {
        let ip = self.called.map_or(workload.ip, |called| called.ip());
        Destination { ip, port, sni: self.sni }
    }

    /// Where the workload's port is reached.
    fn upstream(self, workload: &Workload, port: u16) -> SocketAddr {
        self.called.unwrap_or_else(|| workload.upstream(port))
    }
}

/// A destination behind a proxy of its own, which judges the request once more.
#[derive(Debug)]
pub(crate) struct Beyond {
    pub(crate) toward: Toward,
    pub(crate) sni: Option<Arc<str>>,
    /// The form that its proxy is to see.
    pub(crate) with_tokens: Option<Box<WithTokens>>,
}

/// Where a permitted request goes and on what terms; the route's, or a workload entry's plain ones.
#[derive(Debug, Default)]
pub(crate) struct Terms {
    pub(crate) timeout: Option<Duration>,
    pub(crate) retries: Option<RetryPolicy>,
    pub(crate) delay: Option<Duration>,
    pub(crate) response_headers: Option<Arc<HeaderEdits>>,
    pub(crate) cors: Vec<(HeaderName, HeaderValue)>,
    /// The destination is one of the mesh elsewhere.
    pub(crate) toward: Option<Box<Toward>>,
    /// The server name by which its sidecar is asked.
    pub(crate) sni: Option<Arc<str>>,
}

impl Terms {
    /// With the way to the destination, where that is not simply its address.
    pub(crate) fn toward(self, toward: Option<Toward>) -> Self {
        let toward = toward.filter(|toward| !matches!(toward, Toward::Plain)).map(Box::new);
        Self { toward, ..self }
    }
}

/// What passed its gateway's own policies. One maker: [`pass_gateway`].
#[derive(Debug)]
pub(crate) struct Passed {
    request: Box<Request>,
}

impl Passed {
    pub(crate) fn request(&self) -> &Request {
        &self.request
    }

    /// The request as the route sends it out of the mesh.
    ///
    /// # Errors
    /// As [`Request::leave`].
    pub(crate) fn leave(self, onward: Onward<'_>, remote_ip: IpAddr) -> Result<Self, Refusal> {
        Ok(Self { request: self.request.leave(onward, remote_ip)? })
    }

    /// Gives the request back for its next room; it must be identified and judged anew.
    pub(crate) fn into_request(self) -> Box<Request> {
        self.request
    }
}

/// A verdict that lets pass, not yet with its story. One maker: this room.
#[derive(Debug)]
pub(crate) struct Cleared {
    request: Box<Request>,
    upstream: SocketAddr,
    workload: Option<Arc<Workload>>,
    terms: Terms,
    with_tokens: Option<Box<WithTokens>>,
}

impl Cleared {
    /// Hands the request over to `forward`.
    pub(crate) fn into_permitted(self, story: Box<Record>, reply: ReplyContext) -> Permitted {
        let Self { request, upstream, workload, terms, with_tokens } = self;
        let RequestParts { method, target, authority, headers, upgrade } = request.into_parts();
        let Terms { timeout, retries, delay, response_headers, cors, toward, sni } = terms;
        let beyond = toward.map(|toward| Box::new(Beyond { toward: *toward, sni, with_tokens }));
        Permitted {
            method,
            target,
            authority,
            headers,
            upstream,
            inside: None,
            beyond,
            departure: None,
            upgrade,
            timeout,
            retries,
            delay,
            response_headers,
            cors,
            workload,
            reply,
            story,
        }
    }

    pub(crate) fn upstream(&self) -> SocketAddr {
        self.upstream
    }
}

/// Asks the gateway's own policies; a gateway that no workload stands for has none.
///
/// # Errors
/// [`Refusal::Denied`].
pub(crate) fn pass_gateway(
    identified: Identified,
    caller: Caller<'_>,
    gateway: Option<(&Workload, Destination<'_>)>,
    trace: &mut Trace,
) -> Result<(Passed, Option<Decision>), Refusal> {
    let decision = match gateway {
        Some((workload, destination)) => {
            Some(ask(&workload.policy, &identified, caller, destination, trace)?)
        }
        None => None,
    };
    Ok((Passed { request: identified.into_request() }, decision))
}

/// Asks the policies of the destination workload.
///
/// # Errors
/// [`Refusal::Denied`].
pub(crate) fn authorize(
    classified: Classified,
    caller: Caller<'_>,
    (workload, port): (&Arc<Workload>, u16),
    terms: Terms,
    trace: &mut Trace,
) -> Result<(Cleared, Decision), Refusal> {
    let identified = classified.into_identified();
    let destination = caller.destination(workload, port);
    let decision = ask(&workload.policy, &identified, caller, destination, trace)?;
    let (request, with_tokens) = identified.into_parts();
    let upstream = caller.upstream(workload, port);
    let cleared = Cleared { request, upstream, workload: Some(Arc::clone(workload)), terms, with_tokens };
    Ok((cleared, decision))
}

/// A declared probe of the node itself: no policy is asked.
pub(crate) fn pass_probe(
    request: Box<Request>,
    (workload, address): (&Arc<Workload>, SocketAddr),
    _: &DeclaredProbe,
) -> Cleared {
    let terms = Terms::default();
    let workload = Some(Arc::clone(workload));
    Cleared { request, upstream: address, workload, terms, with_tokens: None }
}

/// A destination outside the mesh has no policy: what the gateway let pass may go there.
pub(crate) fn leave_mesh(passed: Passed, address: SocketAddr, terms: Terms) -> Cleared {
    Cleared { request: passed.request, upstream: address, workload: None, terms, with_tokens: None }
}

fn ask(
    policy: &WorkloadPolicy,
    identified: &Identified,
    caller: Caller<'_>,
    destination: Destination<'_>,
    trace: &mut Trace,
) -> Result<Decision, Refusal> {
    let request = identified.request();
    let question = Question {
        source: caller.source(),
        destination,
        request: Some(RequestFacts {
            method: request.method().as_str(),
            host: request.authority(),
            path: request.target().path(),
            headers: request.headers(),
            identity: identified.identity(),
        }),
    };
    let decision = decide(policy, &question, trace);
    match decision.verdict {
        Verdict::Allow => Ok(decision),
        Verdict::Deny => Err(Refusal::Denied(Box::new(decision))),
    }
}

/// One decision; explained always, on denial only, or never.
fn decide(policy: &WorkloadPolicy, question: &Question<'_>, trace: &mut Trace) -> Decision {
    if trace.always() {
        let (decision, steps) = policy.explain(question);
        trace.extend(steps);
        return decision;
    }
    let decision = policy.decide(question);
    if decision.verdict == Verdict::Deny && trace.on_denial() {
        // The same code once more: a flood of denials pays only where an operator keeps reasons.
        trace.extend(policy.explain(question).1);
    }
    decision
}
