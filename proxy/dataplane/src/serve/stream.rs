//! A client's socket, plain or under TLS, as the codecs see it.

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

/// A connection to a client.
pub(crate) trait Client: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Closes it by a reset: the client must not take what it got for whole.
    fn abort(self);
}

impl Client for TcpStream {
    fn abort(self) {
        let _ = self.set_zero_linger();
    }
}

impl Client for TlsStream<TcpStream> {
    fn abort(self) {
        // No close_notify: under TLS that alone tells of truncation.
        let _ = self.get_ref().0.set_zero_linger();
    }
}
