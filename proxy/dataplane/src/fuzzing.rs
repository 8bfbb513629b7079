//! Doors for the fuzz targets (`tests/fuzz`): what they must reach and nobody else needs. Nothing here
//! decides or forwards by itself.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    Proxy,
    accept::ConnectionFacts,
    authorize::Permitted,
    offline::Forwarded,
    proxy,
    serve::{Client, Decide},
};

/// Any stream as a client's connection.
struct Stream<S>(S);

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Client for Stream<S> {
    /// A stream of the fuzzer's is closed by dropping it.
    fn abort(self) {}
}

impl<S: AsyncRead + Unpin> AsyncRead for Stream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Serves one connection from a stream, plaintext, as [`Proxy::run`] does after `accept`, to its end: every
/// stream of it, its upstream connections and its stories included.
pub async fn serve<D, S>(proxy: Proxy<D>, facts: ConnectionFacts, stream: S)
where
    D: Decide,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let house = proxy.0;
    if let Some(connection) = proxy::admit(&house, facts) {
        let start = crate::serve::Start {
            agreed: None,
            first: bytes::BytesMut::new(),
            drain: Arc::clone(&house.drain),
        };
        crate::serve::serve(Arc::clone(&house), connection, Stream(stream), start).await;
    }
    house.tasks.close();
    house.tasks.wait().await;
}

/// What `forward` would send.
#[must_use]
pub fn forwarded(permitted: &Permitted) -> Forwarded {
    Forwarded {
        method: permitted.method.as_str().to_owned(),
        path: permitted.target.path_and_query(),
        headers: permitted.headers.clone(),
    }
}
