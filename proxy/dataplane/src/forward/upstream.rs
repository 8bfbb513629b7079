//! A connection to an upstream, for as long as whoever answers there is verified.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{hbone::Lost, wire::Wire};

/// See the module.
pub(crate) struct Upstream {
    wire: Wire,
    guard: Guard,
}

/// Whether it may still be used.
enum Guard {
    /// Nobody asks, or somebody else does.
    None,
    Watched(Lost),
    Over,
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Upstream").field(&self.wire).finish()
    }
}

impl Upstream {
    pub(super) fn new(wire: Wire) -> Self {
        Self { wire, guard: Guard::None }
    }

    /// It fails once `lost` says why.
    pub(super) fn until(wire: Wire, lost: Lost) -> Self {
        Self { wire, guard: Guard::Watched(lost) }
    }

    fn poll_over(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match &mut self.guard {
            Guard::None => return Ok(()),
            Guard::Watched(lost) => match lost.as_mut().poll(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(why) => tracing::debug!(why, "an upstream is verified no longer"),
            },
            Guard::Over => {}
        }
        self.guard = Guard::Over;
        Err(over())
    }
}

fn over() -> io::Error {
    io::ErrorKind::ConnectionAborted.into()
}

impl AsyncRead for Upstream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_over(cx)?;
        Pin::new(&mut self.wire).poll_read(cx, buf)
    }
}

impl AsyncWrite for Upstream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_over(cx)?;
        Pin::new(&mut self.wire).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_over(cx)?;
        Pin::new(&mut self.wire).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }
}
