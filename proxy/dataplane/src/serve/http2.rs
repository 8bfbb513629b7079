//! An HTTP/2 connection, from its preface to its close.

use std::{future::poll_fn, pin::pin, sync::Arc, task::Poll, time::Duration};

use bytes::BytesMut;
use hyper::{rt::Executor, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::{
    Decide, House, exchange::exchange, guard::poll_deadline, line::Line, stream::Client, watched::watch,
};
use crate::{Limits, wire::Rewound};

/// Flow-control windows: what a client may send ahead of its reader.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes of a response that wait for a slow client, per stream.
const SEND_BUFFER: usize = 256 * 1024;
/// Streams that a client may reset before we have looked at them (rapid reset, CVE-2023-44487).
const PENDING_RESETS: usize = 20;
/// Streams that we may have to reset for a client's own errors.
const LOCAL_RESETS: usize = 256;
/// How much longer than `responseIdleTimeoutMs` a response may stand still for want of window.
const PAUSE_GRACE: Duration = Duration::from_millis(500);
/// A header list of more than this times the limit on heads ends the stream in the codec; what is
/// between gets our 431, with a record.
const HARD_HEAD_FACTOR: usize = 2;
/// A silent client is asked for a sign of life, and has so long to give it.
const PING_INTERVAL: Duration = Duration::from_secs(60);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Streams run as tasks of the house, each watched.
#[derive(Debug, Clone)]
struct Tasks {
    tracker: TaskTracker,
    pause: Duration,
}

impl<F> Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, task: F) {
        self.tracker.spawn(watch(task, self.pause));
    }
}

/// Serves a connection; `first` was read from it already.
pub(crate) async fn serve<D: Decide, C: Client>(
    house: Arc<House<D>>,
    line: Arc<Line>,
    io: C,
    first: BytesMut,
) {
    let service = {
        let (house, line) = (Arc::clone(&house), Arc::clone(&line));
        service_fn(move |request| exchange(Arc::clone(&house), Arc::clone(&line), request))
    };
    let io = TokioIo::new(Rewound::new(io, first));
    let mut connection = pin!(builder(&house.limits, house.tasks.clone()).serve_connection(io, service));
    let drain = Arc::clone(line.link.drain());
    let mut begun = pin!(drain.begun().cancelled());
    let mut cut = pin!(drain.cut().cancelled());
    let (mut registered, mut said_goodbye) = (false, false);
    let idle = Duration::from_millis(house.limits.idle_timeout_ms);
    let (mut idle_since, mut sleep, mut seen) = (None, None, 0);
    let served = poll_fn(|cx| {
        let draining = line.link.draining().is_some();
        if (!registered || draining) && cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        if !registered {
            registered = true;
            let _ = begun.as_mut().poll(cx);
        }
        if line.link.draining().is_some() && !said_goodbye {
            said_goodbye = true;
            connection.as_mut().graceful_shutdown();
        }
        if let Poll::Ready(served) = connection.as_mut().poll(cx) {
            return Poll::Ready(Some(served));
        }
        if line.link.busy() || line.link.begun() != seen {
            (idle_since, seen) = (None, line.link.begun());
        }
        let since = *idle_since.get_or_insert_with(Instant::now);
        if poll_deadline(&mut sleep, since + idle, cx).is_ready() {
            if line.link.busy() {
                idle_since = None;
                cx.waker().wake_by_ref();
            } else if !said_goodbye {
                said_goodbye = true;
                connection.as_mut().graceful_shutdown();
                idle_since = None;
                cx.waker().wake_by_ref();
            } else {
                return Poll::Ready(None);
            }
        }
        Poll::Pending
    })
    .await;
    if let Some(Err(error)) = served {
        tracing::debug!(%error, "HTTP/2 connection ended");
    }
}

fn builder(limits: &Limits, tasks: TaskTracker) -> http2::Builder<Tasks> {
    let hard = u32::try_from(limits.head_bytes * HARD_HEAD_FACTOR).unwrap_or(u32::MAX);
    // A stream's own clock is the first to say that its upstream pauses.
    let pause = Duration::from_millis(limits.response_idle_timeout_ms) + PAUSE_GRACE;
    let mut builder = http2::Builder::new(Tasks { tracker: tasks, pause });
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_concurrent_streams(limits.concurrent_streams)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(LOCAL_RESETS)
        .max_header_list_size(hard)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}
