//! One request on one connection.

use std::{future::poll_fn, pin::pin, sync::Arc, task::Poll};

use http::{Request, Response, StatusCode};
use hyper::{body::Incoming, client::conn::TrySendError};
use tokio::time::Instant;

use super::{
    Answered, Clock, Lease,
    body::{Flow, UpstreamRequestBody},
    check,
    pool::{Http1, Pool, RESPONSE_HEADS, Reused},
    request::Outbound,
};
use crate::{refusal::UpstreamFault, serve::poll_deadline};

/// Why an attempt failed, and what that allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) fault: UpstreamFault,
    /// The connection was used before, and was found closed: the upstream did not look at the
    /// request, or may see it twice without harm.
    pub(super) stale: bool,
    /// `REFUSED_STREAM`: the upstream did not look at it.
    pub(super) refused: bool,
}

impl From<UpstreamFault> for Failure {
    fn from(fault: UpstreamFault) -> Self {
        Self { fault, stale: false, refused: false }
    }
}

/// Sends the request and waits for the head of its response.
pub(super) async fn attempt(
    pool: &Arc<Pool>,
    outbound: &mut Outbound,
    clock: &mut Clock,
) -> Result<Answered, Failure> {
    if outbound.http2() {
        return attempt_http2(pool, outbound, clock).await;
    }
    let (connection, reused) = match pool.reuse() {
        Some(connection) => (connection, Reused::Yes),
        None => (in_time(pool.open(), clock.head()).await?, Reused::No),
    };
    let repeatable = outbound.repeatable();
    outbound.keep_copy(reused == Reused::Yes && repeatable);
    let Some(request) = outbound.take() else { return Err(UpstreamFault::ClosedBeforeHead.into()) };
    let flow = flow_of(&request);
    let mut connection = connection;
    let response = match send(&mut connection, request, flow.as_deref(), clock).await {
        Ok(response) => response,
        Err(lost) => {
            let unsent = lost.request.is_some();
            if let Some(request) = lost.request {
                outbound.give_back(request);
            }
            let closed = lost.fault == UpstreamFault::ClosedBeforeHead;
            let stale = reused == Reused::Yes && closed && (unsent || repeatable);
            return Err(Failure { fault: lost.fault, stale, refused: false });
        }
    };
    check(&response, outbound.upgrade.as_deref())?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let (upstream, first) = connection.into_upgraded().await;
        return Ok(Answered::Upgraded { head: response.into_parts().0, upstream, first });
    }
    let uploading = flow.is_some_and(|flow| !flow.ended());
    let lease = Lease::http1(connection, Arc::clone(pool), uploading);
    Ok(Answered::Response { response, lease, deadline: clock.end() })
}

async fn attempt_http2(
    pool: &Arc<Pool>,
    outbound: &mut Outbound,
    clock: &mut Clock,
) -> Result<Answered, Failure> {
    let (mut stream, reused) = in_time(pool.share(), clock.head()).await?;
    let repeatable = outbound.repeatable();
    outbound.keep_copy(reused == Reused::Yes && repeatable);
    let Some(request) = outbound.take() else { return Err(UpstreamFault::ClosedBeforeHead.into()) };
    let flow = flow_of(&request);
    let sent = stream.sender.try_send_request(request);
    let response = match wait(sent, flow.as_deref(), clock).await {
        None => return Err(UpstreamFault::Timeout.into()),
        Some(Ok(response)) => response,
        Some(Err(mut error)) => {
            let request = error.take_message();
            let unsent = request.is_some();
            if let Some(request) = request {
                outbound.give_back(request);
            }
            let (fault, refused) = http2_fault(error.error());
            let closed = fault == UpstreamFault::ClosedBeforeHead;
            let stale = reused == Reused::Yes && closed && (unsent || repeatable);
            return Err(Failure { fault, stale, refused });
        }
    };
    check(&response, None)?;
    let lease = Lease::http2(stream);
    Ok(Answered::Response { response, lease, deadline: clock.end() })
}

/// What is left of a request that got no answer.
struct Lost {
    fault: UpstreamFault,
    /// It was not sent at all.
    request: Option<Request<UpstreamRequestBody>>,
}

fn flow_of(request: &Request<UpstreamRequestBody>) -> Option<Arc<Flow>> {
    match request.body() {
        UpstreamRequestBody::Empty => None,
        UpstreamRequestBody::Client(body) => Some(Arc::clone(body.flow())),
    }
}

/// Starts the clock again whenever the request's body has moved.
fn follow(flow: Option<&Flow>, seen: &mut u64, clock: &mut Clock) {
    let Some(flow) = flow else { return };
    // One more at the end, so that it counts as a move.
    let moved = flow.bytes() + u64::from(flow.ended());
    if moved != *seen {
        *seen = moved;
        clock.restart();
    }
}

/// Waits for an answer until the clock has run out: `None`.
async fn wait<T>(answer: impl Future<Output = T>, flow: Option<&Flow>, clock: &mut Clock) -> Option<T> {
    let mut answer = pin!(answer);
    let (mut seen, mut sleep) = (0, None);
    poll_fn(|cx| {
        if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
            return Poll::Ready(Some(answer));
        }
        follow(flow, &mut seen, clock);
        poll_deadline(&mut sleep, clock.head(), cx).map(|()| None)
    })
    .await
}

async fn send(
    connection: &mut Http1,
    request: Request<UpstreamRequestBody>,
    flow: Option<&Flow>,
    clock: &mut Clock,
) -> Result<Response<Incoming>, Box<Lost>> {
    connection.patience.begin(RESPONSE_HEADS);
    let mut answer = pin!(connection.sender.try_send_request(request));
    let mut seen = 0;
    poll_fn(|cx| {
        connection.drive(cx);
        if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
            let rambled = connection.patience.is_over();
            connection.patience.end();
            return Poll::Ready(answer.map_err(|error| lost(error, rambled)));
        }
        if connection.done {
            let fault = UpstreamFault::ClosedBeforeHead;
            return Poll::Ready(Err(Box::new(Lost { fault, request: None })));
        }
        follow(flow, &mut seen, clock);
        poll_deadline(&mut connection.sleep, clock.head(), cx)
            .map(|()| Err(Box::new(Lost { fault: UpstreamFault::Timeout, request: None })))
    })
    .await
}

/// `rambled`: it sent more than may come before a head.
fn lost(mut error: TrySendError<Request<UpstreamRequestBody>>, rambled: bool) -> Box<Lost> {
    let request = error.take_message();
    let protocol = error.error().is_parse() || rambled;
    let fault = if protocol { UpstreamFault::Protocol } else { UpstreamFault::ClosedBeforeHead };
    Box::new(Lost { fault, request })
}

/// What an HTTP/2 error means, and whether the stream was refused unseen.
fn http2_fault(error: &hyper::Error) -> (UpstreamFault, bool) {
    let source = std::error::Error::source(error).and_then(|e| e.downcast_ref::<h2::Error>());
    match source {
        Some(error) if error.reason() == Some(h2::Reason::REFUSED_STREAM) => {
            (UpstreamFault::ClosedBeforeHead, true)
        }
        Some(error) if error.is_library() => (UpstreamFault::Protocol, false),
        _ => (UpstreamFault::ClosedBeforeHead, false),
    }
}

async fn in_time<T>(
    work: impl Future<Output = Result<T, UpstreamFault>>,
    deadline: Instant,
) -> Result<T, UpstreamFault> {
    tokio::time::timeout_at(deadline, work).await.unwrap_or(Err(UpstreamFault::Timeout))
}
