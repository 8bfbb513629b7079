//! Bytes that were read before their reader was known, or before it asked.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

use crate::serve::Client;

/// Read at once for a reader that takes less at a time: two records of TLS. rustls asks for 4 KiB, a system call
/// each.
const AHEAD: usize = 32 * 1024;

/// Whatever bytes come from, and those that were read from it already.
#[derive(Debug)]
pub(crate) struct Rewound<S> {
    io: S,
    first: BytesMut,
    ahead: Ahead,
}

/// How much is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ahead {
    /// What is asked for.
    Never,
    /// The same, as long as less comes than is asked for: most requests do.
    Wary,
    /// [`AHEAD`]: there is more than is asked for.
    Bulk,
}

impl<S> Rewound<S> {
    pub(crate) fn new(io: S, first: BytesMut) -> Self {
        Self { io, first, ahead: Ahead::Never }
    }

    /// From now on reads more at once than is asked for, where more comes.
    pub(crate) fn read_ahead(&mut self) {
        self.ahead = Ahead::Wary;
    }

    pub(crate) fn get_ref(&self) -> &S {
        &self.io
    }

    pub(crate) fn into_parts(self) -> (S, BytesMut) {
        (self.io, self.first)
    }
}

impl<S: Client> Client for Rewound<S> {
    fn abort(self) {
        self.io.abort();
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { io, first, ahead } = self.get_mut();
        if first.is_empty() && *ahead == Ahead::Bulk {
            first.reserve(AHEAD);
            let Poll::Ready(read) = poll_read_buf(Pin::new(&mut *io), cx, first) else {
                *first = BytesMut::new(); // A connection that waits keeps no buffer.
                return Poll::Pending;
            };
            let read = read?;
            if read < buf.remaining() {
                *ahead = Ahead::Wary;
            }
        } else if first.is_empty() {
            ready!(Pin::new(io).poll_read(cx, buf))?;
            if *ahead == Ahead::Wary && buf.remaining() == 0 {
                *ahead = Ahead::Bulk;
            }
            return Poll::Ready(Ok(()));
        }
        let length = first.len().min(buf.remaining());
        buf.put_slice(first.get(..length).unwrap_or_default());
        first.advance(length);
        if first.is_empty() && *ahead == Ahead::Wary {
            *first = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// Reads as rustls does, 4 KiB at most.
    async fn piece(io: &mut Rewound<tokio::io::DuplexStream>) -> Vec<u8> {
        let mut buffer = [0; 4096];
        let length = io.read(&mut buffer).await.unwrap();
        buffer[..length].to_vec()
    }

    #[tokio::test]
    async fn what_is_read_ahead_comes_whole_and_in_order() {
        let (mut far, near) = duplex(1 << 20);
        let mut near = Rewound::new(near, BytesMut::from(&b"first"[..]));
        near.read_ahead();
        let sent: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).take(1_000_003).collect();
        let writing = tokio::spawn({
            let sent = sent.clone();
            async move {
                for part in sent.chunks(70_001) {
                    far.write_all(part).await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
        });
        assert_eq!(piece(&mut near).await, b"first");
        let (mut got, mut pieces) = (Vec::new(), 0);
        loop {
            let piece = piece(&mut near).await;
            if piece.is_empty() {
                break;
            }
            (got, pieces) = ([got, piece].concat(), pieces + 1);
        }
        writing.await.unwrap();
        assert!(got == sent, "{} of {} bytes in {pieces} pieces", got.len(), sent.len());
    }

    #[tokio::test]
    async fn a_connection_that_waits_keeps_no_buffer() {
        let (mut far, near) = duplex(1 << 20);
        let mut near = Rewound::new(near, BytesMut::new());
        near.read_ahead();
        far.write_all(&[7; 3 * AHEAD]).await.unwrap();
        let mut got = 0;
        while got < 3 * AHEAD {
            got += piece(&mut near).await.len();
        }
        assert_eq!(near.ahead, Ahead::Bulk);
        let waits = tokio::time::timeout(std::time::Duration::from_millis(10), piece(&mut near)).await;
        assert!(waits.is_err());
        assert_eq!(near.first.capacity(), 0);
        far.write_all(b"little").await.unwrap();
        assert_eq!(piece(&mut near).await, b"little");
        assert_eq!((near.ahead, near.first.capacity()), (Ahead::Wary, 0));
    }
}
