//! One tunnel's bytes: a CONNECT stream's DATA (RFC 9113 §8.5), both ways, as a socket's.
//!
//! The end of a direction is END_STREAM, and the other direction goes on. A reset is an error on both.

use std::{
    any::Any,
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::serve::Client;

/// Bytes that are handed to the codec at once.
const CHUNK: usize = 64 * 1024;

/// See the module. Dropped before both directions have ended, it is reset.
pub(crate) struct Stream {
    send: SendStream<Bytes>,
    receive: RecvStream,
    /// Received, not yet read.
    rest: Bytes,
    /// We have said everything.
    ended: bool,
    /// Held for as long as the stream is: its place among others.
    _hold: Option<Arc<dyn Any + Send + Sync>>,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl Stream {
    pub(crate) fn new(send: SendStream<Bytes>, receive: RecvStream) -> Self {
        Self { send, receive, rest: Bytes::new(), ended: false, _hold: None }
    }

    /// The same stream; `hold` is dropped with it.
    pub(crate) fn holding(self, hold: Arc<dyn Any + Send + Sync>) -> Self {
        Self { _hold: Some(hold), ..self }
    }

    /// Nothing but DATA may be in a tunnel (RFC 9113 §8.5): one that has trailers did not end well.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(self.receive.poll_trailers(cx)) {
            Ok(None) => Poll::Ready(Ok(())),
            Ok(Some(_)) => {
                self.send.send_reset(Reason::PROTOCOL_ERROR);
                Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, "trailers in a tunnel")))
            }
            Err(error) => Poll::Ready(Err(broken(error))),
        }
    }

    /// Waits for room for at least one byte.
    fn poll_room(&mut self, wanted: usize, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            self.send.reserve_capacity(wanted);
            // `poll_capacity` tells of changes only.
            let room = self.send.capacity();
            if room > 0 {
                return Poll::Ready(Ok(room));
            }
            match ready!(self.send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => {
                    let reason = ready!(self.send.poll_reset(cx)).map_err(broken)?;
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::BrokenPipe, reason.description())));
                }
            }
        }
    }
}

impl Client for Stream {
    fn abort(mut self) {
        self.send.send_reset(Reason::CANCEL);
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.receive.poll_data(cx)) {
                Some(Ok(bytes)) => self.rest = bytes,
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => return self.poll_end(cx),
            }
        }
        let length = self.rest.len().min(buf.remaining());
        buf.put_slice(self.rest.get(..length).unwrap_or_default());
        self.rest.advance(length);
        // Only what was read makes room for more: who does not read holds up the sender.
        self.receive.flow_control().release_capacity(length).map_err(broken)?;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let wanted = bytes.len().min(CHUNK);
        let room = ready!(self.poll_room(wanted, cx))?.min(wanted);
        let chunk = Bytes::copy_from_slice(bytes.get(..room).unwrap_or_default());
        self.send.send_data(chunk, false).map_err(broken)?;
        Poll::Ready(Ok(room))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.ended {
            self.ended = true;
            self.send.send_data(Bytes::new(), true).map_err(broken)?;
        }
        Poll::Ready(Ok(()))
    }
}

fn broken(error: h2::Error) -> io::Error {
    match error.get_io() {
        Some(io) => io::Error::new(io.kind(), error),
        None => io::Error::new(io::ErrorKind::ConnectionReset, error),
    }
}
