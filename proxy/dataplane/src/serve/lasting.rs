//! What is under way is judged again when the mesh changes.
//!
//! Most of it is asked when it has something to pass on: not a byte of an answer follows a change that forbids
//! it. What may be silent for as long as its parties like (an upgrade, a stream of events, gRPC) is woken, and so
//! is an upload.

mod head;

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use http::{HeaderMap, header, request::Parts};
use policy::WorkloadName;

use self::head::Head;
use super::{Decide, line::Line, newest};
use crate::{Refusal, authorize::Permitted, engine::Refused, reply::Grpc};

/// A route's weights and faults are thrown anew each time: how often it is asked for the destination that
/// the request went to.
const THROWS: usize = 100;

/// The details of what ends so.
pub(super) const POLICY_CHANGED: &str = "policy_changed";

/// Why a request is permitted no longer.
#[derive(Debug)]
pub(super) enum Forbidden {
    /// As a new one it would be refused so.
    Refused(Box<Refused>),
    /// It would not come to the same destination.
    Elsewhere,
}

/// A request's head as it came.
pub(super) struct Asked<D> {
    head: Head,
    /// Its tokens counted then.
    since: Instant,
    /// Its answer may last for as long as its parties like.
    lasts: bool,
    engine: Arc<D>,
    line: Arc<Line>,
    /// The snapshot that it was judged by.
    version: u64,
    /// Where it went.
    to: Option<WorkloadName>,
}

impl<D: Decide> Asked<D> {
    /// Asked before the request is judged. None where nothing can change.
    pub(super) fn keep(
        parts: &Parts,
        since: Instant,
        engine: &Arc<D>,
        line: &Arc<Line>,
    ) -> Option<Box<Self>> {
        engine.mesh()?;
        let lasts = parts.headers.contains_key(header::UPGRADE)
            || wants_events(&parts.headers)
            || Grpc::of(&parts.headers) == Grpc::Yes;
        let (head, engine, line) = (Head::of(parts), Arc::clone(engine), Arc::clone(line));
        Some(Box::new(Self { head, since, lasts, engine, line, version: 0, to: None }))
    }

    /// Begins to watch over what it is answered with.
    pub(super) fn watch(mut self: Box<Self>, permitted: &Permitted) -> Watch {
        self.version = permitted.story.snapshot;
        if self.lasts {
            self.to = permitted.workload.as_ref().map(|workload| workload.name.clone());
        }
        Watch { wakes: self.lasts, awake: None, state: State::Judged(self) }
    }

    async fn judge(&self) -> Result<(), Forbidden> {
        let ago = i64::try_from(self.since.elapsed().as_secs()).unwrap_or(i64::MAX);
        let at = self.engine.now().saturating_sub(ago);
        for _ in 0..THROWS {
            let Some(head) = self.head.parts() else { return Err(Forbidden::Elsewhere) };
            match self.engine.decide_again(&self.line.connection, head, at).await {
                Ok(permitted) if !self.lasts || self.is_for(&permitted) => return Ok(()),
                Ok(_) => {}
                Err(refused) => match &refused.refusal {
                    Refusal::Answered(_) if self.lasts => {}
                    refusal if !self.lasts && !forbids(refusal) => return Ok(()),
                    _ => return Err(Forbidden::Refused(refused)),
                },
            }
        }
        Err(Forbidden::Elsewhere)
    }

    fn is_for(&self, permitted: &Permitted) -> bool {
        permitted.workload.as_ref().map(|workload| &workload.name) == self.to.as_ref()
    }
}

/// Whether a refusal says that the request may not be, not only that it would go nowhere by now: a route
/// that was moved cuts no download.
fn forbids(refusal: &Refusal) -> bool {
    match refusal {
        Refusal::Answered(_)
        | Refusal::NoRoute
        | Refusal::NoDestination(_)
        | Refusal::Limit(_)
        | Refusal::Upstream(_) => false,
        Refusal::Dropped(_)
        | Refusal::Malformed(_)
        | Refusal::Head(_)
        | Refusal::Target(_)
        | Refusal::Credentials(_)
        | Refusal::Denied(_)
        | Refusal::Internal(_) => true,
    }
}

/// [`Asked`], whatever decides.
trait Judge: Send {
    /// Whether the mesh has changed since it was judged.
    fn is_due(&self) -> bool;

    fn again(self: Box<Self>) -> Judging;

    /// Ends with the next change; false: there will be none.
    fn change(&self) -> Pin<Box<dyn Future<Output = bool> + Send>>;
}

type Judging = Pin<Box<dyn Future<Output = Result<Box<dyn Judge>, Forbidden>> + Send>>;

impl<D: Decide> Judge for Asked<D> {
    fn is_due(&self) -> bool {
        let newest = self.engine.mesh().map(|mesh| mesh.borrow());
        newest.is_some_and(|newest| newest.as_ref().is_some_and(|newest| newest.version != self.version))
    }

    fn again(mut self: Box<Self>) -> Judging {
        Box::pin(async move {
            // Before it is judged: what changes meanwhile is another change.
            self.version = newest(&*self.engine).map_or(self.version, |snapshot| snapshot.version);
            self.judge().await?;
            Ok(self as Box<dyn Judge>)
        })
    }

    fn change(&self) -> Pin<Box<dyn Future<Output = bool> + Send>> {
        let (mesh, version) = (self.engine.mesh().cloned(), self.version);
        Box::pin(async move {
            let Some(mut mesh) = mesh else { return false };
            let other = |snapshot: &Option<Arc<mesh::Snapshot>>| {
                snapshot.as_ref().is_some_and(|snapshot| snapshot.version != version)
            };
            mesh.wait_for(other).await.is_ok()
        })
    }
}

/// Watches over one request.
pub(super) struct Watch {
    /// Whoever asks is woken by a change.
    wakes: bool,
    awake: Option<Pin<Box<dyn Future<Output = bool> + Send>>>,
    state: State,
}

enum State {
    Judged(Box<dyn Judge>),
    Judging(Judging),
    Forbidden,
}

impl Watch {
    /// Whether it is permitted by the newest snapshot; pending while that is judged.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Forbidden>> {
        loop {
            let asked = match &mut self.state {
                State::Forbidden => return Poll::Ready(Err(Forbidden::Elsewhere)),
                State::Judging(judging) => {
                    self.state = match ready!(judging.as_mut().poll(cx)) {
                        Ok(asked) => State::Judged(asked),
                        Err(forbidden) => {
                            self.state = State::Forbidden;
                            return Poll::Ready(Err(forbidden));
                        }
                    };
                    continue;
                }
                State::Judged(asked) => asked,
            };
            if asked.is_due() {
                if let State::Judged(asked) = std::mem::replace(&mut self.state, State::Forbidden) {
                    (self.awake, self.state) = (None, State::Judging(asked.again()));
                }
                continue;
            }
            if !self.wakes {
                return Poll::Ready(Ok(()));
            }
            match self.awake.get_or_insert_with(|| asked.change()).as_mut().poll(cx) {
                Poll::Pending => return Poll::Ready(Ok(())),
                Poll::Ready(more) => (self.awake, self.wakes) = (None, more),
            }
        }
    }

    /// Whether it is permitted by the newest snapshot.
    pub(super) async fn judged(&mut self) -> Result<(), Forbidden> {
        poll_fn(|cx| self.poll(cx)).await
    }

    /// Ends when it is permitted no longer.
    pub(super) async fn forbidden(&mut self) -> Forbidden {
        self.wakes = true;
        poll_fn(|cx| match self.poll(cx) {
            Poll::Ready(Err(forbidden)) => Poll::Ready(forbidden),
            _ => Poll::Pending,
        })
        .await
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}

/// `Accept: text/event-stream` (HTML, server-sent events): what browsers' `EventSource` sends.
fn wants_events(headers: &HeaderMap) -> bool {
    const EVENTS: &[u8] = b"text/event-stream";
    let named = |value: &[u8]| value.windows(EVENTS.len()).any(|part| part.eq_ignore_ascii_case(EVENTS));
    headers.get_all(header::ACCEPT).iter().any(|value| named(value.as_bytes()))
}
