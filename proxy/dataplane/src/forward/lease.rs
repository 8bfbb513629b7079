//! Holds an upstream connection until the response's end, then gives it back.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::pool::{Http1, Http2, Pool};
use crate::serve::poll_deadline;

/// The hold of one exchange on its connection.
#[derive(Debug)]
pub(crate) struct Lease(Hold);

#[derive(Debug)]
enum Hold {
    /// Driven by whoever reads the response.
    Driven(Box<Http1>, Arc<Pool>),
    /// The request's body is still under way: a task of its own drives the connection, so that the
    /// two directions do not wait for each other.
    Spawned { driver: tokio::task::AbortHandle, sleep: Option<Pin<Box<Sleep>>> },
    /// HTTP/2 connections have their own task.
    Stream { _stream: Http2, sleep: Option<Pin<Box<Sleep>>> },
    /// Given back.
    Ended,
}

impl Lease {
    pub(super) fn http1(mut connection: Box<Http1>, pool: Arc<Pool>, uploading: bool) -> Self {
        if !uploading {
            return Self(Hold::Driven(connection, pool));
        }
        let driver = tokio::spawn(std::future::poll_fn(move |cx| {
            connection.drive(cx);
            if connection.done { Poll::Ready(()) } else { Poll::Pending }
        }));
        Self(Hold::Spawned { driver: driver.abort_handle(), sleep: None })
    }

    pub(super) fn http2(stream: Http2) -> Self {
        Self(Hold::Stream { _stream: stream, sleep: None })
    }

    /// The next part of the response's body.
    pub(crate) fn poll_frame(
        &mut self,
        incoming: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut *incoming).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        let Hold::Driven(connection, _) = &mut self.0 else { return Poll::Pending };
        connection.drive(cx);
        Pin::new(incoming).poll_frame(cx)
    }

    /// Waits until a deadline, on the connection's own timer.
    pub(crate) fn poll_deadline(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            Hold::Driven(connection, _) => poll_deadline(&mut connection.sleep, deadline, cx),
            Hold::Spawned { sleep, .. } | Hold::Stream { sleep, .. } => poll_deadline(sleep, deadline, cx),
            Hold::Ended => Poll::Ready(()),
        }
    }

    /// The response has ended: the connection may serve another request.
    pub(crate) fn give_back(&mut self) {
        match std::mem::replace(&mut self.0, Hold::Ended) {
            Hold::Driven(connection, pool) => pool.put_back(connection),
            // The response was complete before the request: whether the upstream will read the rest
            // is unknown, so the connection ends with this exchange.
            Hold::Spawned { driver, .. } => driver.abort(),
            Hold::Stream { .. } | Hold::Ended => {}
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Hold::Spawned { driver, .. } = &self.0 {
            driver.abort();
        }
    }
}
