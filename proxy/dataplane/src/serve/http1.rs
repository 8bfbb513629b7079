//! An HTTP/1 connection, from its first byte to its close.

use std::{
    future::{pending, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use http::Response;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    Decide, House,
    exchange::exchange,
    framing::FramingError,
    guard::Guard,
    lasting::POLICY_CHANGED,
    line::{Line, Tunnel},
    story::Story,
    stream::Client,
};
use crate::{
    Limits, Refusal,
    forward::tunnel,
    record,
    reply::{self, ReplyContext},
    wire::Rewound,
};

/// After the last response: how long, and for how many bytes, the client's own are read and thrown
/// away, so that it reads our answer and not a reset (RFC 9112 §9.6).
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 256 * 1024;

/// Serves a connection; `first` was read from it already.
pub(crate) async fn serve<D: Decide, C: Client>(
    house: Arc<House<D>>,
    line: Arc<Line>,
    io: C,
    first: BytesMut,
) {
    let guard = Guard::new(io, first, Arc::clone(&line.link), &house.limits);
    let service = {
        let (house, line) = (Arc::clone(&house), Arc::clone(&line));
        service_fn(move |request| exchange(Arc::clone(&house), Arc::clone(&line), request))
    };
    let mut connection = builder(&house.limits).serve_connection(TokioIo::new(guard), service);
    let drain = Arc::clone(line.link.drain());
    let mut begun = pin!(drain.begun().cancelled());
    let mut cut = pin!(drain.cut().cancelled());
    let (mut waits_for_drain, mut waits_for_cut) = (true, true);
    let served = poll_fn(|cx| {
        // Each is asked when it has something to say, not with every byte: once to be woken by it,
        // once more after it woke us.
        if waits_for_drain {
            waits_for_drain = false;
            let _ = begun.as_mut().poll(cx);
        }
        let draining = line.link.draining().is_some();
        if (waits_for_cut || draining) && cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        waits_for_cut = false;
        Pin::new(&mut connection).poll(cx).map(Some)
    })
    .await;
    let Some(served) = served else {
        // It holds the line that holds it.
        drop(line.take_tunnel());
        return;
    };
    let parts = connection.into_parts();
    if let Some(tunnel) = line.take_tunnel() {
        if served.is_ok() {
            let client = Rewound::new(parts.io.into_inner(), parts.read_buf.into());
            Box::pin(carry(&house, tunnel, client)).await;
        }
        return;
    }
    let (io, client_closed) = parts.io.into_inner().into_inner();
    if line.link.aborted() {
        io.abort();
        return;
    }
    if let Err(error) = &served {
        tracing::debug!(%error, "HTTP/1 connection ended");
    }
    // Boxed: it is needed for the shortest part of a connection's life.
    Box::pin(finish(&house, line, io, served.err(), client_closed)).await;
}

/// Carries bytes both ways after an accepted upgrade, until the proxy has drained or policy says no.
async fn carry<D: Decide, C: Client>(house: &House<D>, upgraded: Tunnel, client: Rewound<Guard<C>>) {
    let Tunnel { upstream, first, mut story, watch } = upgraded;
    let idle = Duration::from_millis(house.limits.upgrade_idle_timeout_ms);
    let work = tunnel(client, upstream, &first, idle);
    let drain = Arc::clone(story.link().drain());
    let forbidden = async {
        match watch {
            Some(mut watch) => drop(watch.forbidden().await),
            None => pending().await,
        }
    };
    let done = tokio::select! {
        biased;
        () = drain.cut().cancelled() => {
            story.cut("DC", drain.why().unwrap_or("drain_timeout"));
            return;
        }
        () = forbidden => {
            story.cut("-", POLICY_CHANGED);
            return;
        }
        done = work => done,
    };
    let record = story.record();
    record.request_bytes = done.up;
    record.response_bytes = done.down;
    if done.idle {
        story.cut("SI", "stream_idle_timeout");
    }
    story.complete();
}

fn builder(limits: &Limits) -> http1::Builder {
    /// The codec's own default; more headers than that cost an allocation each request.
    const CHEAP_HEADERS: usize = 100;
    /// The codec accepts no less.
    const LEAST_BUFFER: usize = 64 * 1024;
    let mut builder = http1::Builder::new();
    builder.half_close(false).max_buf_size((limits.head_bytes + 8192).max(LEAST_BUFFER));
    if limits.header_count > CHEAP_HEADERS {
        builder.max_headers(limits.header_count);
    }
    builder
}

/// Says why the next head was refused, if it was, and closes the connection so that the client can
/// read what it was told.
async fn finish<D: Decide, C: Client>(
    house: &House<D>,
    line: Arc<Line>,
    mut io: C,
    error: Option<hyper::Error>,
    client_closed: bool,
) {
    let work = async {
        if let Some(refused) = line.link.head_refused() {
            let answer = refuse_head(house, &line, refused);
            if io.write_all(&answer).await.is_err() {
                return;
            }
        } else if error.is_some_and(|error| error.is_parse()) {
            // The codec has answered by itself; what it refused is still told.
            refuse_head(house, &line, FramingError::Malformed("the request head cannot be parsed"));
        }
        if io.shutdown().await.is_err() || client_closed {
            return;
        }
        let mut sink = [0; 4096];
        let mut left = LINGER_BYTES;
        while left > 0 {
            match io.read(&mut sink).await {
                Ok(length) if length > 0 => left = left.saturating_sub(length),
                _ => return,
            }
        }
    };
    let _ = tokio::time::timeout(LINGER, work).await;
}

/// The answer to a head that never became a request, told to the record.
fn refuse_head<D: Decide>(house: &House<D>, line: &Arc<Line>, error: FramingError) -> Bytes {
    let refusal = Refusal::from(error);
    let response = reply::render(&refusal, &ReplyContext::default());
    line.link.begin();
    let recorder = Arc::clone(&house.recorder);
    let mut story = Story::begin(Arc::clone(line), recorder, http::Version::HTTP_11);
    record::failed(story.record(), &refusal, &response);
    story.complete();
    write_response(&response)
}

fn write_response(response: &Response<Bytes>) -> Bytes {
    let mut bytes = BytesMut::with_capacity(256 + response.body().len());
    let status = response.status();
    let reason = status.canonical_reason().unwrap_or_default();
    bytes.put_slice(format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).as_bytes());
    for (name, value) in response.headers() {
        bytes.put_slice(name.as_str().as_bytes());
        bytes.put_slice(b": ");
        bytes.put_slice(value.as_bytes());
        bytes.put_slice(b"\r\n");
    }
    let length = format!("content-length: {}\r\nconnection: close\r\n\r\n", response.body().len());
    bytes.put_slice(length.as_bytes());
    bytes.put_slice(response.body());
    bytes.freeze()
}
