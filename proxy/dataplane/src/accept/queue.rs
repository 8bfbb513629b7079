//! The kernel's queue of a listening socket: taken from until the proxy drains.

use std::{io, net::SocketAddr, time::Duration};

use futures_util::FutureExt;
use socket2::{SockFilter, SockRef};
use tokio::{
    net::{TcpListener, TcpStream},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// Draining: how long the kernel's queue of connections may take to run empty.
const QUEUE_LIMIT: Duration = Duration::from_secs(2);
/// Pause after an accept that failed for want of file descriptors or memory.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);
/// Draining: how long after the last one we still look for a connection in the kernel's queue.
const BACKLOG_GRACE: Duration = Duration::from_millis(20);

/// Classic BPF over the TCP header (filter.rst of the kernel's networking documentation): a segment
/// with SYN and without ACK is dropped, every other passes.
const DROP_SYN: [SockFilter; 5] = [
    SockFilter::new(0x30, 0, 0, 13), // load the byte with the flags (RFC 9293 §3.1)
    SockFilter::new(0x54, 0, 0, 0x12), // keep SYN and ACK
    SockFilter::new(0x15, 0, 1, 0x02), // SYN alone?
    SockFilter::new(0x06, 0, 0, 0),  // drop
    SockFilter::new(0x06, 0, 0, 0xffff_ffff), // pass
];

/// A listening socket.
#[derive(Debug)]
pub(crate) struct Queue {
    /// Whose it is, for the log.
    name: String,
    socket: TcpListener,
}

impl Queue {
    pub(crate) fn new(name: String, socket: TcpListener) -> Self {
        Self { name, socket }
    }

    /// Hands on every connection until `stop`, and then those that are left in the queue.
    pub(crate) async fn serve(self, stop: &CancellationToken, mut take: impl FnMut(TcpStream, SocketAddr)) {
        loop {
            let (socket, peer) = tokio::select! {
                accepted = self.accept() => accepted,
                () = stop.cancelled() => break,
            };
            take(socket, peer);
        }
        self.refuse_new();
        let began = Instant::now();
        while began.elapsed() < QUEUE_LIMIT
            && let Some((socket, peer)) = self.accept_rest().await
        {
            take(socket, peer);
        }
    }

    /// The next connection.
    async fn accept(&self) -> (TcpStream, SocketAddr) {
        loop {
            match self.socket.accept().await {
                Ok((socket, peer)) => match socket.set_nodelay(true) {
                    Ok(()) => return (socket, peer),
                    Err(error) => tracing::debug!(%error, "connection gone before it was served"),
                },
                Err(error) if is_of_connection(&error) => {}
                // EINVAL: it listens no more. A pod that may destroy sockets has destroyed ours; its
                // connections are refused until it has new listeners, and nobody else's.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    tracing::error!(listener = self.name, %error, "the listener was ended by another");
                    std::future::pending::<()>().await;
                }
                Err(error) => {
                    tracing::warn!(listener = self.name, %error, "cannot accept connections");
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                }
            }
        }
    }

    /// Draining begins: the kernel takes no more connections for us, silently, so that the queue
    /// empties however many clients come; their SYN is sent again a second later and then refused.
    /// Handshakes under way still end: closing the socket right away would reset them, and with them
    /// requests that were sent in good faith.
    fn refuse_new(&self) {
        match SockRef::from(&self.socket).attach_filter(&DROP_SYN) {
            Ok(()) => {}
            // Some kernels let nobody without CAP_BPF do it. For a pod little is lost: its connections
            // are steered to the next proxy, or refused, before this queue is read to its end.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                tracing::debug!(listener = self.name, %error, "new connections are not held off");
            }
            Err(error) => tracing::warn!(listener = self.name, %error, "new connections cannot be held off"),
        }
    }

    /// What is left in the kernel's queue; `None` when it is empty.
    async fn accept_rest(&self) -> Option<(TcpStream, SocketAddr)> {
        let accepted = tokio::time::timeout(BACKLOG_GRACE, self.accept()).await.ok();
        // Once more without waiting: what came in while the timer fired is not to be reset.
        accepted.or_else(|| self.accept().now_or_never())
    }
}

/// Errors of one connection, not of the listener.
fn is_of_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
