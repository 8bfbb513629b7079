//! The calling side against servers of this test, over memory.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bad;
mod lanes;
mod life;
mod tunnels;

use std::{
    future::pending,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use h2::{
    RecvStream,
    server::{Connection, SendResponse},
};
use http::{Request, Response};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::Notify,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Between, From, Lane, Lanes, Lost, Patience, Stream, Until, client::Ended};
use crate::{
    capture::PodId,
    refusal::{TunnelFault, UpstreamFault},
};

/// Nothing here takes so long, however busy the machine is.
const LONG: Duration = Duration::from_secs(60);

/// Tunnels on a connection.
const STREAMS: usize = 100;

/// What the server does with the tunnels that it is asked for.
#[derive(Clone, Copy, PartialEq)]
enum Does {
    /// Sends back what comes.
    Echo,
    /// Takes them, and does nothing.
    Hold,
    Answer(u16),
    /// Says nothing.
    Silence,
    /// Ends the connection instead of an answer.
    Die,
    /// Refuses the stream unseen.
    RefuseStream,
}

/// A server, however often it is connected to.
struct Server {
    does: Does,
    streams: u32,
    /// Connections so far.
    opened: AtomicUsize,
    /// Tells all of them to go away.
    away: Notify,
    /// The first connection ends when it is asked for more tunnels than these.
    first_takes: Option<usize>,
    answers_pings: bool,
    /// Connections that have ended.
    closed: AtomicUsize,
}

impl Server {
    fn new(does: Does) -> Self {
        Self {
            does,
            streams: 1000,
            opened: AtomicUsize::new(0),
            away: Notify::new(),
            first_takes: None,
            answers_pings: true,
            closed: AtomicUsize::new(0),
        }
    }

    fn opened(&self) -> usize {
        self.opened.load(Ordering::SeqCst)
    }

    fn connect(self: &Arc<Self>) -> DuplexStream {
        let number = self.opened.fetch_add(1, Ordering::SeqCst) + 1;
        let (near, far) = tokio::io::duplex(256 * 1024);
        let server = Arc::clone(self);
        tokio::spawn(async move {
            if server.answers_pings {
                Arc::clone(&server).serve(far, number).await;
                server.closed.fetch_add(1, Ordering::SeqCst);
            } else {
                let _open = far;
                pending::<()>().await;
            }
        });
        near
    }

    async fn serve(self: Arc<Self>, io: DuplexStream, number: usize) {
        let mut builder = h2::server::Builder::new();
        builder
            .max_concurrent_streams(self.streams)
            .initial_window_size(64 * 1024)
            .initial_connection_window_size(16 * 1024 * 1024);
        let Ok(mut connection) = builder.handshake::<_, Bytes>(io).await else { return };
        let mut taken = 0;
        loop {
            tokio::select! {
                asked = connection.accept() => match asked {
                    Some(Ok((request, answer))) => {
                        assert_eq!(request.method(), http::Method::CONNECT);
                        let full = number == 1 && self.first_takes == Some(taken);
                        taken += 1;
                        if self.does == Does::Die || full {
                            return;
                        }
                        self.tunnel(request, answer);
                    }
                    _ => return,
                },
                () = self.away.notified() => {
                    connection.graceful_shutdown();
                    return drain(connection).await;
                }
            }
        }
    }

    fn tunnel(self: &Arc<Self>, request: Request<RecvStream>, mut answer: SendResponse<Bytes>) {
        let status = match self.does {
            Does::Answer(status) => status,
            Does::RefuseStream => return answer.send_reset(h2::Reason::REFUSED_STREAM),
            Does::Silence => {
                tokio::spawn(async move {
                    let _held = (request, answer);
                    pending::<()>().await;
                });
                return;
            }
            _ => 200,
        };
        let response = Response::builder().status(status).body(()).unwrap();
        let send = answer.send_response(response, status != 200).unwrap();
        if status != 200 {
            return;
        }
        let mut stream = Stream::new(send, request.into_body());
        let echo = self.does == Does::Echo;
        tokio::spawn(async move {
            if !echo {
                let _held = stream;
                return pending::<()>().await;
            }
            let mut buffer = vec![0; 64 * 1024];
            loop {
                match stream.read(&mut buffer).await {
                    Ok(0) => return stream.shutdown().await.unwrap_or_default(),
                    Ok(length) => stream.write_all(&buffer[..length]).await.unwrap_or_default(),
                    Err(_) => return,
                }
            }
        });
    }
}

async fn drain(mut connection: Connection<DuplexStream, Bytes>) {
    while connection.accept().await.is_some() {}
}

fn patience() -> Patience {
    Patience { ping_every: LONG, ping: LONG, idle: LONG, answer: LONG, tunnels: STREAMS }
}

fn lane() -> Lane {
    Lane::new(1000, patience())
}

fn connect() -> Option<Request<()>> {
    Request::builder().method("CONNECT").uri("10.0.0.1:80").body(()).ok()
}

/// Verified for ever.
fn forever() -> (Lost, Until) {
    (Box::pin(pending()), Until::FOREVER)
}

async fn tunnel(lane: &Lane, server: &Arc<Server>) -> Result<(Stream, Arc<Ended>), UpstreamFault> {
    let open = || async { Ok((server.connect(), forever())) };
    timeout(LONG, lane.tunnel(connect, open)).await.expect("it took too long")
}

fn fault(outcome: Result<(Stream, Arc<Ended>), UpstreamFault>) -> UpstreamFault {
    outcome.map(drop).unwrap_err()
}
