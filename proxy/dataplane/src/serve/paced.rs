//! A client that no longer reads: its response must not hold an upstream connection, memory and a
//! place among the requests for ever. The codec asks for no more of a body while the client's
//! socket is full, so the body's own clock stands still; the socket is watched instead.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

use super::{guard::poll_deadline, link::Link, stream::Client};

/// A socket whose writes may pause no longer than `limits.responseIdleTimeoutMs`; after an upgrade
/// the tunnel has a limit of its own.
#[derive(Debug)]
pub(crate) struct Paced<S> {
    io: S,
    link: Arc<Link>,
    pause: Duration,
    waiting: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl<S> Paced<S> {
    pub(crate) fn new(io: S, link: Arc<Link>, pause: Duration) -> Self {
        Self { io, link, pause, waiting: None, sleep: None }
    }

    /// What the socket said, unless it has said nothing for too long.
    fn watch<T>(
        &mut self,
        said: Poll<io::Result<T>>,
        moved: bool,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if said.is_ready() || self.link.upgraded() {
            if moved {
                self.waiting = None;
            }
            return said;
        }
        let since = *self.waiting.get_or_insert_with(Instant::now);
        poll_deadline(&mut self.sleep, since + self.pause, cx).map(|()| {
            self.link.stall();
            Err(io::ErrorKind::TimedOut.into())
        })
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let said = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.watch(said, true, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A plain socket's flush is always done and says nothing of the client.
        let said = Pin::new(&mut self.io).poll_flush(cx);
        self.watch(said, false, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let said = Pin::new(&mut self.io).poll_shutdown(cx);
        self.watch(said, false, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let said = Pin::new(&mut self.io).poll_write_vectored(cx, bytes);
        self.watch(said, true, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

impl<S: Client> Client for Paced<S> {
    fn abort(self) {
        self.io.abort();
    }
}
