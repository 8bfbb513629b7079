//! The called side of an HBONE connection: HTTP/2 with one tunnel in each stream.
//!
//! It ends when its client is verified no longer, when the client is silent, idle or a nuisance; draining,
//! it says so (GOAWAY) and goes on until its tunnels have ended.

use std::{
    future::{pending, poll_fn},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Ping, PingPong, Reason,
    server::{Builder, Connection, SendResponse},
};
use http::Request;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsStream;
use tokio_util::sync::CancellationToken;

use super::{entrance::Entrance, tunnel};
use crate::{
    Limits,
    secure::Client,
    serve::{Decide, Drain, House},
    wire::Prefixed,
};

/// What a tunnel may receive before it is read; a connection so much for each of its tunnels, so that one
/// that is not read does not hold up the others.
pub(super) const STREAM_WINDOW: u32 = 256 * 1024;
/// RFC 9113 §6.9.1.
const WINDOW_MOST: u32 = (1 << 31) - 1;
/// Of a frame of bytes that we take.
const FRAME_MOST: u32 = 64 * 1024;
/// Bytes of a tunnel that wait for a slow client.
const SEND_BUFFER: usize = 256 * 1024;
/// Streams that a client may reset before we have looked at them (rapid reset, CVE-2023-44487).
const PENDING_RESETS: usize = 20;
/// Streams that we may have to reset for a client's own errors.
const LOCAL_RESETS: usize = 256;
/// So many more tunnels reset before they were answered than answered, and the client is a nuisance.
pub(super) const CANCELLED_MOST: usize = 200;
/// How long the last words may take.
const FAREWELL: Duration = Duration::from_secs(1);

type Io = Box<TlsStream<Prefixed>>;

/// One connection.
pub(super) struct Server<D> {
    pub(super) house: Arc<House<D>>,
    pub(super) entrance: Entrance,
    pub(super) client: Arc<Client>,
    /// Its own: it drains by itself once the client is verified no longer.
    pub(super) drain: Arc<Drain>,
    tunnels: Mutex<Tunnels>,
    /// The client resets what it asks for.
    nuisance: CancellationToken,
}

/// Its tunnels.
struct Tunnels {
    open: usize,
    /// When the last one ended.
    since: Instant,
    cancelled: usize,
}

/// A tunnel's place on its connection.
pub(super) struct Place<D>(Arc<Server<D>>);

impl<D> Drop for Place<D> {
    fn drop(&mut self) {
        let mut tunnels = self.0.tunnels();
        tunnels.open -= 1;
        tunnels.since = Instant::now();
    }
}

/// Serves a connection whose client was verified, to its end.
pub(super) async fn serve<D: Decide>(house: Arc<House<D>>, entrance: Entrance, io: Io, client: Client) {
    let tls = Arc::clone(&entrance.tls);
    let drain = Arc::new(Drain::within(&entrance.drain(&house)));
    let client = Arc::new(client);
    let server = Arc::new(Server {
        house,
        entrance,
        client: Arc::clone(&client),
        drain: Arc::clone(&drain),
        tunnels: Mutex::new(Tunnels { open: 0, since: Instant::now(), cancelled: 0 }),
        nuisance: CancellationToken::new(),
    });
    // The server itself goes with its last tunnel: it holds the drain, by which its life is told.
    let serving = Box::pin(drive(server, io));
    tls.while_verified(&client, &drain, serving).await;
}

impl<D> Server<D> {
    fn tunnels(&self) -> std::sync::MutexGuard<'_, Tunnels> {
        self.tunnels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more. The codec sees to it that no more are open at once than the client was told;
    /// as many that have ended may still be being cleared away.
    fn place(self: &Arc<Self>) -> Option<Place<D>> {
        let mut tunnels = self.tunnels();
        let most = self.house.limits.tunnels_per_connection.saturating_mul(2);
        if tunnels.open >= usize::try_from(most).unwrap_or(usize::MAX) {
            return None;
        }
        tunnels.open += 1;
        Some(Place(Arc::clone(self)))
    }

    /// A tunnel was reset before it was answered.
    pub(super) fn cancelled(&self) {
        let mut tunnels = self.tunnels();
        tunnels.cancelled += 1;
        if tunnels.cancelled > CANCELLED_MOST {
            self.nuisance.cancel();
        }
    }

    /// One was answered.
    pub(super) fn answered(&self) {
        let mut tunnels = self.tunnels();
        tunnels.cancelled = tunnels.cancelled.saturating_sub(1);
    }

    /// Once there has been no tunnel for so long.
    async fn idle(&self, limit: Duration) {
        loop {
            let ends = {
                let tunnels = self.tunnels();
                let since = if tunnels.open > 0 { Instant::now() } else { tunnels.since };
                since.checked_add(limit)
            };
            match ends {
                Some(ends) if ends <= Instant::now() => return,
                Some(ends) => sleep_until(ends).await,
                None => pending().await,
            }
        }
    }
}

fn builder(limits: &Limits) -> Builder {
    let window = STREAM_WINDOW.saturating_mul(limits.tunnels_per_connection).min(WINDOW_MOST);
    let mut builder = Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(window.max(STREAM_WINDOW))
        .max_frame_size(FRAME_MOST)
        .max_concurrent_streams(limits.tunnels_per_connection)
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(Some(LOCAL_RESETS));
    builder
}

async fn drive<D: Decide>(server: Arc<Server<D>>, io: Io) {
    let limits = &server.house.limits;
    let preface = Duration::from_millis(limits.head_timeout_ms);
    let Ok(Ok(mut h2)) = timeout(preface, builder(limits).handshake::<_, Bytes>(io)).await else { return };
    let ping = h2.ping_pong();
    let why = tokio::select! {
        () = tunnels(&server, &mut h2) => return,
        () = server.drain.cut().cancelled() => Reason::CANCEL,
        () = server.nuisance.cancelled() => Reason::ENHANCE_YOUR_CALM,
        () = silent(ping, Duration::from_millis(limits.tunnel_ping_ms)) => Reason::NO_ERROR,
    };
    tracing::debug!(peer = %server.entrance.peer, %why, "HBONE connection ended");
    h2.abrupt_shutdown(why);
    let _ = timeout(FAREWELL, poll_fn(|cx| h2.poll_closed(cx))).await;
}

/// Takes tunnels until the connection closes.
async fn tunnels<D: Decide>(server: &Arc<Server<D>>, h2: &mut Connection<Io, Bytes>) {
    let idle = Duration::from_millis(server.house.limits.idle_timeout_ms);
    let leaving = async {
        tokio::select! {
            () = server.drain.begun().cancelled() => {}
            () = server.idle(idle) => {}
        }
    };
    let mut leaving = std::pin::pin!(leaving);
    let mut said_goodbye = false;
    loop {
        tokio::select! {
            asked = h2.accept() => match asked {
                Some(Ok((request, answer))) => take(server, request, answer),
                Some(Err(error)) => return tracing::debug!(%error, "HBONE connection broken"),
                None => return,
            },
            () = &mut leaving, if !said_goodbye => {
                said_goodbye = true;
                h2.graceful_shutdown();
            }
        }
    }
}

fn take<D: Decide>(
    server: &Arc<Server<D>>,
    request: Request<h2::RecvStream>,
    mut answer: SendResponse<Bytes>,
) {
    let Some(place) = server.place() else { return answer.send_reset(Reason::REFUSED_STREAM) };
    let server = Arc::clone(server);
    server.house.tasks.clone().spawn(async move {
        tunnel::open(server, request, answer, place).await;
    });
}

/// Once the client gives no sign of life when asked. That it may answer late is allowed for.
async fn silent(ping: Option<PingPong>, every: Duration) {
    let Some(mut ping) = ping else { return pending().await };
    loop {
        sleep(every).await;
        match timeout(every.saturating_mul(2), ping.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            // The connection has ended, and tells so itself.
            Ok(Err(_)) => return pending().await,
            Err(_) => return,
        }
    }
}
