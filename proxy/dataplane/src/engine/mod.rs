//! The decision, room by room: `admit`, `serve::head`, `identify`, `classify`, `authorize`, and at a
//! gateway its own policies and its route before them. Live requests and offline ones
//! (`fhirward test`, `fhirward explain`) come this way alike.

mod tcp;
#[cfg(test)]
mod tests;
mod trace;

use std::{sync::Arc, time::Instant};

use fhir::Format;
use http::{header, request::Parts};
use identity::Authenticator;
use mesh::{Snapshot, Workload};
use observe::Record;
use policy::{Outcome, Step, target::TargetRules};
use tokio::sync::watch;

use crate::{
    Limits, Refusal,
    accept::Connection,
    admit::{self, AdmitError, Admitted, Place},
    authorize::{self, Caller, Cleared, Permitted, Terms},
    capture::DeclaredProbe,
    classify::classify,
    dice::Dice,
    identify::{Identified, Tokens, identify},
    record::{self, Labels},
    reply::{self, ReplyContext},
    serve::head::{Edge, Request},
};

pub(crate) use trace::Trace;

/// What an operator says of deciding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineSettings {
    /// Refuse ambiguous targets at the gateway, before a route is looked for (`mesh.strictTarget`);
    /// the destination's own rules hold after it.
    pub strict_target: bool,
    /// Trusted proxies in front of the gateway (`mesh.numTrustedProxies`).
    pub trusted_proxies: u32,
    /// Keep the steps behind each denial in its record. Costs a second evaluation per denial.
    pub keep_reasons: bool,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self { strict_target: true, trusted_proxies: 0, keep_reasons: false }
    }
}

/// What every request needs, passed in once. Shared by all connections.
pub struct Engine {
    pub(crate) mesh: watch::Receiver<Option<Arc<Snapshot>>>,
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) limits: Arc<Limits>,
    settings: EngineSettings,
    dice: Dice,
    labels: Labels,
}

/// A refused request: what to answer and the story so far.
///
/// The server side renders the answer with `reply::render(&refusal, &reply)` unless the refusal
/// drops the connection, tells it to the story with `record::answered`, and records the story.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub refusal: Refusal,
    /// How to word it.
    pub reply: ReplyContext,
    /// What is known so far for the record; the refusal is told in it already.
    pub story: Box<Record>,
}

/// A decision under way.
pub(crate) struct Walk {
    /// When tokens had to count, in Unix seconds; `None`: now.
    at: Option<i64>,
    pub(crate) story: Box<Record>,
    pub(crate) reply: ReplyContext,
    pub(crate) trace: Trace,
}

impl Engine {
    /// An engine over the newest snapshot that `mesh` holds.
    #[must_use]
    pub fn new(
        mesh: watch::Receiver<Option<Arc<Snapshot>>>,
        authenticator: Arc<Authenticator>,
        limits: Arc<Limits>,
        settings: EngineSettings,
    ) -> Self {
        Self { mesh, authenticator, limits, settings, dice: Dice::new(), labels: Labels::default() }
    }

    /// Whether a connection may speak at all: asked once when it is secured, and again by
    /// [`Engine::decide`] for each request under the newest snapshot.
    ///
    /// # Errors
    /// [`AdmitError`]: the connection is dropped without an answer.
    pub fn admit<'a>(&self, connection: &'a Connection) -> Result<Admitted<'a>, AdmitError> {
        admit::admit(connection, self.newest())
    }

    /// The whole decision about a request.
    ///
    /// # Errors
    /// [`Refused`], for `reply` and `record`.
    pub async fn decide(&self, connection: &Connection, head: Parts) -> Result<Permitted, Box<Refused>> {
        self.walk(connection, head, None, Trace::live(self.settings.keep_reasons)).await.0
    }

    /// The same about a request that was let through at `at` (Unix seconds), by the newest snapshot. Its tokens
    /// need not have outlived it.
    ///
    /// # Errors
    /// [`Refused`], as for a new one.
    pub async fn decide_again(
        &self,
        connection: &Connection,
        head: Parts,
        at: i64,
    ) -> Result<Permitted, Box<Refused>> {
        self.walk(connection, head, Some(at), Trace::live(self.settings.keep_reasons)).await.0
    }

    /// The same decision by the same code, with every step that led to it.
    pub async fn explain(
        &self,
        connection: &Connection,
        head: Parts,
    ) -> (Result<Permitted, Box<Refused>>, Vec<Step>) {
        self.walk(connection, head, None, Trace::everything()).await
    }

    pub(crate) fn labels(&self) -> &Labels {
        &self.labels
    }

    pub(crate) fn dice(&self) -> &Dice {
        &self.dice
    }

    /// One read of the newest snapshot; a request sees no other (invariant 3).
    fn newest(&self) -> Option<Arc<Snapshot>> {
        self.mesh.borrow().clone()
    }

    async fn walk(
        &self,
        connection: &Connection,
        head: Parts,
        at: Option<i64>,
        trace: Trace,
    ) -> (Result<Permitted, Box<Refused>>, Vec<Step>) {
        let began = Instant::now();
        let story = record::begin(connection, head.version);
        let mut walk = Walk { at, story, reply: ReplyContext::of(&head.headers), trace };
        let result = self.rooms(connection, head, &mut walk).await;
        let Walk { mut story, reply, trace, .. } = walk;
        story.decided_after = began.elapsed();
        let result = match result {
            Ok(cleared) => {
                story.upstream = Some(cleared.upstream());
                Ok(cleared.into_permitted(story, reply))
            }
            Err(refusal) => {
                record::refused(&mut story, &refusal);
                Err(Box::new(Refused { refusal, reply, story }))
            }
        };
        let steps = trace.into_steps();
        match result {
            Err(mut refused) if self.settings.keep_reasons => {
                refused.story.steps.clone_from(&steps);
                (Err(refused), steps)
            }
            result => (result, steps),
        }
    }

    async fn rooms(&self, connection: &Connection, head: Parts, walk: &mut Walk) -> Result<Cleared, Refusal> {
        let snapshot = self.newest();
        let probe = connection.captured.as_ref().and_then(|captured| captured.probe(&head));
        if let Some(probe) = probe {
            return self.probed(connection, snapshot, head, &probe, walk);
        }
        let admitted = admit::admit(connection, snapshot)?;
        walk.story.snapshot = admitted.snapshot().version;
        let request = self.read(&admitted, head, walk)?;
        match admitted.place() {
            Place::Gateway { .. } => self.at_gateway(&admitted, request, walk).await,
            Place::Workload { workload, port } => {
                let snapshot = admitted.snapshot();
                record::source_at(&mut walk.story, &self.labels, snapshot, connection);
                let to = (workload, *port);
                record::destination(&mut walk.story, &self.labels, snapshot, to, None);
                record::called(&mut walk.story, connection);
                let identity = connection.identity.as_ref();
                let caller = caller(connection, &request).with_identity(identity);
                // A listener in front of a workload is its proxy; the settings may say that another is behind.
                let elsewhere = connection.captured.is_none() && workload.tunnel.is_some();
                let toward = elsewhere.then(|| snapshot.toward(workload.upstream(*port), Some(workload)));
                let terms = Terms::default().toward(toward);
                self.at_workload(to, request, caller, terms, walk).await
            }
        }
    }

    /// A declared probe of the node itself: its head is read as any other, and no policy is asked.
    fn probed(
        &self,
        connection: &Connection,
        snapshot: Option<Arc<Snapshot>>,
        head: Parts,
        probe: &DeclaredProbe,
        walk: &mut Walk,
    ) -> Result<Cleared, Refusal> {
        let admitted = admit::admit_probe(connection, snapshot, probe)?;
        walk.story.snapshot = admitted.snapshot().version;
        let request = self.read(&admitted, head, walk)?;
        let Place::Workload { workload, port } = admitted.place() else {
            return Err(Refusal::Internal("a probe that did not come to a workload"));
        };
        let to = (workload, *port);
        record::destination(&mut walk.story, &self.labels, admitted.snapshot(), to, None);
        record::called(&mut walk.story, connection);
        "probe".clone_into(&mut walk.story.details);
        let address = connection.called().unwrap_or_else(|| workload.upstream(*port));
        Ok(authorize::pass_probe(request, (workload, address), probe))
    }

    /// The head, canonical by the rules of the place where it arrived.
    fn read(&self, admitted: &Admitted<'_>, head: Parts, walk: &mut Walk) -> Result<Box<Request>, Refusal> {
        let (edge, rules) = match admitted.place() {
            Place::Gateway { .. } => {
                let trusted_proxies = self.settings.trusted_proxies;
                (Edge::Gateway { trusted_proxies }, self.gateway_rules(admitted.snapshot()))
            }
            Place::Workload { workload, .. } => {
                walk.reply.fhir = fhir_format(workload, &head.headers, head.uri.query());
                (Edge::Workload, workload.target_rules)
            }
        };
        let (method, uri) = (head.method.clone(), head.uri.clone());
        let host = head.headers.get(header::HOST).cloned();
        let own = (&*self.limits, &self.dice);
        match Request::read(head, admitted.connection(), edge, rules, own) {
            Ok(request) => {
                record::head(&mut walk.story, &request);
                Ok(request)
            }
            Err(refusal) => {
                let host = host.as_ref().and_then(|host| host.to_str().ok());
                record::raw(&mut walk.story, &method, &uri, host);
                Err(refusal)
            }
        }
    }

    pub(crate) fn gateway_rules(&self, snapshot: &Snapshot) -> TargetRules {
        TargetRules { normalization: snapshot.mesh.path_normalization, strict: self.settings.strict_target }
    }

    /// The destination's rooms: identify, classify, authorize.
    pub(crate) async fn at_workload(
        &self,
        (workload, port): (&Arc<Workload>, u16),
        request: Box<Request>,
        caller: Caller<'_>,
        terms: Terms,
        walk: &mut Walk,
    ) -> Result<Cleared, Refusal> {
        walk.trace.note(|| stage(format!("workload {} port {port}", workload.name)));
        let keep = if terms.toward.is_some() { Tokens::Kept } else { Tokens::Spent };
        let identified = self.identify(request, workload, (caller.tls, keep), walk).await?;
        let classified = classify(identified, workload.fhir.as_ref());
        record::classified(&mut walk.story, &classified);
        let (cleared, decision) =
            authorize::authorize(classified, caller, (workload, port), terms, &mut walk.trace)?;
        record::decided(&mut walk.story, decision);
        Ok(cleared)
    }

    /// Verifies the tokens by a workload's rules (a gateway's, or the destination's).
    pub(crate) async fn identify(
        &self,
        request: Box<Request>,
        workload: &Workload,
        (tls, keep): (bool, Tokens),
        walk: &mut Walk,
    ) -> Result<Identified, Refusal> {
        let rules = workload.policy.jwt_rules();
        identify(request, rules, &self.authenticator, (keep, walk.at), &mut walk.trace).await.map_err(
            |(rejection, request)| {
                let scheme = if tls { "https" } else { "http" };
                let realm = reply::realm(scheme, request.authority(), request.original_target().as_str());
                walk.reply.realm = Some(realm);
                Refusal::Credentials(rejection)
            },
        )
    }
}

/// The connection's caller, not yet with an identity.
pub(crate) fn caller<'a>(connection: &'a Connection, request: &Request) -> Caller<'a> {
    Caller {
        ip: connection.peer.ip().to_canonical(),
        remote_ip: request.remote_ip(),
        identity: None,
        sni: connection.sni.as_deref(),
        tls: connection.tls,
        called: connection.called(),
    }
}

/// The FHIR format of an error, where the workload serves FHIR and the client takes it.
pub(crate) fn fhir_format(
    workload: &Workload,
    headers: &http::HeaderMap,
    query: Option<&str>,
) -> Option<Format> {
    workload.fhir.as_ref()?;
    let accept = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    Format::negotiate(accept, query)
}

/// A stage of an explanation.
pub(crate) fn stage(subject: String) -> Step {
    Step { subject, outcome: Outcome::Info, detail: String::new(), redacted: None, place: None, depth: 0 }
}
