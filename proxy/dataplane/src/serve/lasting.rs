//! What lasts is judged again when the mesh changes: unlike a connection it has no next request that could be.

use std::{
    fmt,
    future::pending,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{HeaderMap, header, request::Parts};
use mesh::Snapshot;
use policy::WorkloadName;
use tokio::sync::watch;

use super::{Decide, line::Line};
use crate::{Refusal, authorize::Permitted, reply::Grpc};

/// A route's weights and faults are thrown anew each time: how often it is asked for the destination that
/// the request went to.
const THROWS: usize = 100;

/// The details of what ends so.
pub(super) const POLICY_CHANGED: &str = "policy_changed";

/// The head of a request, as it came, whose answer may last for as long as its parties like: an upgrade, a
/// stream of events, gRPC.
#[derive(Debug)]
pub(super) struct Asked {
    head: Box<Parts>,
    /// What comes from it was not known when the request was judged.
    mesh: watch::Receiver<Option<Arc<Snapshot>>>,
}

impl Asked {
    /// Asked before the request is judged. Copied only where it may be needed.
    pub(super) fn keep<D: Decide>(head: &Parts, engine: &D) -> Option<Self> {
        let lasts = head.headers.contains_key(header::UPGRADE)
            || wants_events(&head.headers)
            || Grpc::of(&head.headers) == Grpc::Yes;
        let mut mesh = engine.mesh().filter(|_| lasts)?.clone();
        mesh.mark_unchanged();
        Some(Self { head: Box::new(head.clone()), mesh })
    }

    /// Begins to watch over what it was answered with.
    pub(super) fn watch<D: Decide>(self, engine: &Arc<D>, line: &Arc<Line>, permitted: &Permitted) -> Watch {
        let (engine, line) = (Arc::clone(engine), Arc::clone(line));
        let to = permitted.workload.as_ref().map(|workload| workload.name.clone());
        Watch(Box::pin(async move { self.forbidden(&*engine, &line, to.as_ref()).await }))
    }

    /// Ends when the newest snapshot no longer permits it.
    async fn forbidden<D: Decide>(mut self, engine: &D, line: &Line, to: Option<&WorkloadName>) {
        while self.mesh.changed().await.is_ok() {
            if !self.is_permitted(engine, line, to).await {
                return;
            }
        }
        pending().await
    }

    /// Whether the same request would be let through to the same workload.
    async fn is_permitted<D: Decide>(&self, engine: &D, line: &Line, to: Option<&WorkloadName>) -> bool {
        for _ in 0..THROWS {
            match engine.decide(&line.connection, (*self.head).clone()).await {
                Ok(permitted) if permitted.workload.as_ref().map(|workload| &workload.name) == to => {
                    return true;
                }
                Ok(_) => {}
                Err(refused) if matches!(refused.refusal, Refusal::Answered(_)) => {}
                Err(_) => return false,
            }
        }
        false
    }
}

/// Ready once what it watches over is permitted no longer.
pub(super) struct Watch(Pin<Box<dyn Future<Output = ()> + Send>>);

impl Watch {
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

impl Future for Watch {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
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
