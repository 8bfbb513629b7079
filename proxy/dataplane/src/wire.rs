//! One end of a connection, whatever carries its bytes: a socket, TLS on one, or a tunnel's stream.
//!
//! Rooms behind detection take a [`Wire`], so that a connection is treated alike whichever way it came.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::TlsStream;

use crate::{hbone, serve::Client};

/// See the module.
#[derive(Debug)]
pub(crate) enum Wire {
    /// The socket itself.
    Tcp(Prefixed),
    /// TLS of the mesh, either role.
    Tls(Box<TlsStream<Prefixed>>),
    /// A stream of an HBONE connection.
    Tunnel(Box<hbone::Stream>),
}

/// A socket of which some bytes may have been read already.
pub(crate) type Prefixed = Rewound<Socket>;

impl Wire {
    /// The socket as it is.
    pub(crate) fn tcp(socket: TcpStream) -> Self {
        Self::Tcp(Rewound::new(Socket::new(socket), BytesMut::new()))
    }

    /// The socket below, where that is this connection's alone.
    pub(crate) fn socket(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(socket) => Some(socket.get_ref().tcp()),
            Self::Tls(tls) => Some(tls.get_ref().0.get_ref().tcp()),
            Self::Tunnel(_) => None,
        }
    }
}

impl From<TcpStream> for Wire {
    fn from(socket: TcpStream) -> Self {
        Self::tcp(socket)
    }
}

impl Client for Wire {
    fn abort(self) {
        match self {
            Self::Tcp(socket) => Socket::abort(socket.get_ref()),
            // No close_notify: under TLS that alone tells of truncation.
            Self::Tls(tls) => tls.get_ref().0.get_ref().abort(),
            Self::Tunnel(stream) => stream.abort(),
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_read(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_read(cx, buf),
            Self::Tunnel(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_write(cx, bytes),
            Self::Tls(io) => Pin::new(io).poll_write(cx, bytes),
            Self::Tunnel(io) => Pin::new(io).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_write_vectored(cx, bytes),
            Self::Tls(io) => Pin::new(io).poll_write_vectored(cx, bytes),
            Self::Tunnel(io) => Pin::new(io).poll_write_vectored(cx, bytes),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(io) => io.is_write_vectored(),
            Self::Tls(io) => io.is_write_vectored(),
            Self::Tunnel(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_flush(cx),
            Self::Tls(io) => Pin::new(io).poll_flush(cx),
            Self::Tunnel(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_shutdown(cx),
            Self::Tls(io) => Pin::new(io).poll_shutdown(cx),
            Self::Tunnel(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}

/// A TCP socket, and how it is read.
#[derive(Debug)]
pub(crate) struct Socket {
    io: TcpStream,
    /// Urgent data may come, in line (`SO_OOBINLINE`): a read ends at their mark, with more behind it.
    urgent: bool,
}

impl Socket {
    pub(crate) fn new(io: TcpStream) -> Self {
        Self { io, urgent: false }
    }

    /// A socket with urgent data in line. tokio takes a buffer that was not filled for the end of what has
    /// come and waits for more to come; here the kernel is asked again, for one system call more.
    pub(crate) fn with_urgent(io: TcpStream) -> Self {
        Self { io, urgent: true }
    }

    pub(crate) fn tcp(&self) -> &TcpStream {
        &self.io
    }

    pub(crate) fn into_tcp(self) -> TcpStream {
        self.io
    }

    /// Dropped, it is closed by a reset.
    pub(crate) fn abort(&self) {
        let _ = self.io.set_zero_linger();
    }
}

impl Client for Socket {
    fn abort(self) {
        Self::abort(&self);
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.urgent {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        loop {
            ready!(self.io.poll_read_ready(cx))?;
            match self.io.try_read_buf(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return Poll::Ready(outcome.map(drop)),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
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

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Whatever bytes come from, and those that were read from it already.
#[derive(Debug)]
pub(crate) struct Rewound<S> {
    io: S,
    first: BytesMut,
}

impl<S> Rewound<S> {
    pub(crate) fn new(io: S, first: BytesMut) -> Self {
        Self { io, first }
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
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let length = self.first.len().min(buf.remaining());
        buf.put_slice(self.first.get(..length).unwrap_or_default());
        self.first.advance(length);
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
