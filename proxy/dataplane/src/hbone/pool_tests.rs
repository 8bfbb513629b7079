//! The calling side against servers of this test, over memory.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

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

#[tokio::test]
async fn a_tunnel_carries_bytes_both_ways_and_each_way_ends_alone() {
    const LENGTH: u64 = 64 * 1024 * 1024;
    let (lane, server) = (lane(), Arc::new(Server::new(Does::Echo)));
    let (stream, _) = tunnel(&lane, &server).await.unwrap();
    let (mut read, mut write) = tokio::io::split(stream);
    let sending = tokio::spawn(async move {
        let chunk = vec![7; 64 * 1024];
        for _ in 0..LENGTH / 65_536 {
            write.write_all(&chunk).await.unwrap();
        }
        write.shutdown().await.unwrap();
        write
    });
    let mut count = 0;
    let mut buffer = vec![0; 64 * 1024];
    let reading = async {
        loop {
            match read.read(&mut buffer).await.unwrap() {
                0 => return count,
                length => count += length as u64,
            }
        }
    };
    assert_eq!(timeout(LONG, reading).await.unwrap(), LENGTH, "and what comes after our end comes too");
    sending.await.unwrap();
}

#[tokio::test]
async fn tunnels_share_a_connection_as_far_as_the_peer_allows() {
    let mut server = Server::new(Does::Hold);
    server.streams = 2;
    let (lane, server) = (lane(), Arc::new(server));
    let mut held = Vec::new();
    for wanted in [1, 1, 2, 2, 3] {
        held.push(tunnel(&lane, &server).await.unwrap());
        assert_eq!(server.opened(), wanted);
    }
    // A place that is free again is used again.
    held.remove(0);
    held.push(tunnel(&lane, &server).await.unwrap());
    held.push(tunnel(&lane, &server).await.unwrap());
    assert_eq!(server.opened(), 3);
}

#[tokio::test]
async fn a_burst_opens_no_more_connections_than_it_fills() {
    let (lane, server) = (Arc::new(lane()), Arc::new(Server::new(Does::Hold)));
    let burst = (0..2 * STREAMS).map(|_| {
        let (lane, server) = (Arc::clone(&lane), Arc::clone(&server));
        tokio::spawn(async move { tunnel(&lane, &server).await.unwrap() })
    });
    let mut held = Vec::new();
    for one in burst.collect::<Vec<_>>() {
        held.push(one.await.unwrap());
    }
    assert_eq!((held.len(), server.opened(), lane.connections()), (2 * STREAMS, 2, 2));
}

#[tokio::test]
async fn a_peer_that_takes_no_streams_is_not_waited_for() {
    let mut server = Server::new(Does::Hold);
    server.streams = 0;
    let server = Arc::new(server);
    assert_eq!(fault(tunnel(&lane(), &server).await), TunnelFault::Protocol.into());
}

#[tokio::test]
async fn goaway_leads_to_another_connection_and_leaves_what_is_under_way() {
    let (lane, server) = (lane(), Arc::new(Server::new(Does::Echo)));
    let (mut old, _) = tunnel(&lane, &server).await.unwrap();
    server.away.notify_one();
    let fresh = async {
        // It may take a moment to come.
        loop {
            let tunnel = tunnel(&lane, &server).await.unwrap();
            if server.opened() == 2 {
                return tunnel;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    let (mut fresh, _) = timeout(LONG, fresh).await.unwrap();
    for stream in [&mut old, &mut fresh] {
        stream.write_all(b"ping").await.unwrap();
        let mut read = [0; 4];
        timeout(LONG, stream.read_exact(&mut read)).await.unwrap().unwrap();
        assert_eq!(&read, b"ping");
    }
}

#[tokio::test]
async fn a_connection_that_is_to_go_away_closes_with_its_last_tunnel() {
    let (lane, server) = (lane(), Arc::new(Server::new(Does::Echo)));
    let (mut stream, _) = tunnel(&lane, &server).await.unwrap();
    stream.write_all(b"once").await.unwrap();
    stream.read_exact(&mut [0; 4]).await.unwrap();
    server.away.notify_one();
    sleep(Duration::from_millis(50)).await;
    stream.write_all(b"more").await.unwrap();
    timeout(LONG, stream.read_exact(&mut [0; 4])).await.unwrap().unwrap();
    assert_eq!(server.closed.load(Ordering::SeqCst), 0);
    stream.shutdown().await.unwrap();
    assert_eq!(timeout(LONG, stream.read(&mut [0; 1])).await.unwrap().unwrap(), 0);
    drop(stream);
    let closed = async {
        while server.closed.load(Ordering::SeqCst) == 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, closed).await.expect("the connection stays");
}

#[tokio::test]
async fn answers_say_why_there_is_no_tunnel() {
    for (status, wanted) in [
        (401, TunnelFault::Denied),
        (400, TunnelFault::Refused),
        (503, TunnelFault::Unreached),
        (404, TunnelFault::Answer(404)),
        (204, TunnelFault::Answer(204)),
        (302, TunnelFault::Answer(302)),
    ] {
        let (lane, server) = (lane(), Arc::new(Server::new(Does::Answer(status))));
        assert_eq!(fault(tunnel(&lane, &server).await), wanted.into());
        assert_eq!(fault(tunnel(&lane, &server).await), wanted.into());
        assert_eq!(server.opened(), 1, "the connection is as good as before");
    }
}

#[tokio::test]
async fn a_connection_that_ended_unnoticed_is_replaced_and_a_new_one_is_not() {
    let (lane, server) = (lane(), Arc::new(Server::new(Does::Die)));
    assert_eq!(fault(tunnel(&lane, &server).await), TunnelFault::Closed.into());
    assert_eq!(server.opened(), 1, "whoever ends it at once is not asked again");
    let refuses = Arc::new(Server::new(Does::RefuseStream));
    assert_eq!(fault(tunnel(&lane, &refuses).await), TunnelFault::Closed.into());
}

#[tokio::test]
async fn a_request_that_nobody_has_seen_is_sent_once_more() {
    let mut server = Server::new(Does::Echo);
    server.first_takes = Some(1);
    let (lane, server) = (lane(), Arc::new(server));
    drop(tunnel(&lane, &server).await.unwrap());
    let (mut stream, _) = tunnel(&lane, &server).await.unwrap();
    assert_eq!(server.opened(), 2, "the first ended instead of an answer");
    stream.write_all(b"once").await.unwrap();
    let mut read = [0; 4];
    timeout(LONG, stream.read_exact(&mut read)).await.unwrap().unwrap();
    assert_eq!(&read, b"once");
}

#[tokio::test]
async fn a_peer_that_says_nothing_is_not_waited_for_long() {
    let short = Patience { answer: Duration::from_millis(50), ..patience() };
    let mut dumb = Server::new(Does::Hold);
    dumb.answers_pings = false;
    let dumb = Arc::new(dumb);
    let lane = Lane::new(10, short);
    assert_eq!(fault(tunnel(&lane, &dumb).await), TunnelFault::Silent.into());
    let silent = Arc::new(Server::new(Does::Silence));
    let slow = Lane::new(10, Patience { answer: Duration::from_secs(3), ..patience() });
    assert_eq!(fault(tunnel(&slow, &silent).await), TunnelFault::Silent.into());
    // Its place is free again.
    assert_eq!(slow.connections(), 1);
    assert!(!slow.sweep(Instant::now()) && slow.sweep(Instant::now() + 2 * LONG));
}

#[tokio::test]
async fn an_opening_that_fails_fails_for_all_who_waited() {
    let short = Patience { answer: Duration::from_millis(200), ..patience() };
    let mut dumb = Server::new(Does::Hold);
    dumb.answers_pings = false;
    let (lane, dumb) = (Arc::new(Lane::new(1000, short)), Arc::new(dumb));
    let waiting = (0..50).map(|_| {
        let (lane, dumb) = (Arc::clone(&lane), Arc::clone(&dumb));
        tokio::spawn(async move { fault(tunnel(&lane, &dumb).await) })
    });
    for one in waiting.collect::<Vec<_>>() {
        assert_eq!(one.await.unwrap(), TunnelFault::Silent.into());
    }
    assert!(dumb.opened() < 5, "{}", dumb.opened());
    let full = Lane::new(0, short);
    assert_eq!(fault(tunnel(&full, &dumb).await), UpstreamFault::Overflow);
}

#[tokio::test]
async fn a_tunnel_that_nobody_reads_does_not_hold_up_others() {
    let (lane, server) = (lane(), Arc::new(Server::new(Does::Echo)));
    // What comes back to these is not read, until their windows are full.
    let mut stalled = Vec::new();
    for _ in 0..STREAMS - 1 {
        let (mut stream, _) = tunnel(&lane, &server).await.unwrap();
        let chunk = vec![0; 1024 * 1024];
        let _ = timeout(Duration::from_millis(20), stream.write_all(&chunk)).await;
        stalled.push(stream);
    }
    let (mut stream, _) = tunnel(&lane, &server).await.unwrap();
    assert_eq!(server.opened(), 1);
    for _ in 0..64 {
        let mut chunk = vec![1; 32 * 1024];
        let round = async {
            stream.write_all(&chunk).await.unwrap();
            stream.read_exact(&mut chunk).await.unwrap();
        };
        timeout(LONG, round).await.expect("it stalls with the others");
    }
}

#[tokio::test]
async fn tunnels_that_are_given_up_unread_give_back_their_room() {
    let (lane, server) = (lane(), Arc::new(Server::new(Does::Echo)));
    // More than the connection's window in all.
    for _ in 0..200 {
        let (mut stream, _) = tunnel(&lane, &server).await.unwrap();
        timeout(LONG, stream.write_all(&vec![0; 200 * 1024])).await.unwrap().unwrap();
        timeout(LONG, stream.read_exact(&mut [0; 1])).await.unwrap().unwrap();
    }
    let (mut stream, _) = tunnel(&lane, &server).await.unwrap();
    stream.write_all(b"still").await.unwrap();
    let mut read = [0; 5];
    timeout(LONG, stream.read_exact(&mut read)).await.expect("no room is left").unwrap();
    assert_eq!((&read, server.opened()), (b"still", 1));
}

#[tokio::test]
async fn an_idle_connection_ends_and_a_used_one_stays() {
    let (lane, server) = (lane(), Arc::new(Server::new(Does::Echo)));
    let (stream, _) = tunnel(&lane, &server).await.unwrap();
    let now = Instant::now();
    assert!(!lane.sweep(now) && !lane.sweep(now + 10 * LONG), "it is used");
    drop(stream);
    assert!(!lane.sweep(now) && !lane.sweep(now + LONG / 2));
    let stream = tunnel(&lane, &server).await.unwrap();
    assert!(!lane.sweep(now + LONG), "it was used meanwhile");
    drop(stream);
    assert!(!lane.sweep(now + 2 * LONG) && lane.sweep(now + 3 * LONG));
    tunnel(&lane, &server).await.unwrap();
    assert_eq!(server.opened(), 2);
}

#[tokio::test]
async fn a_peer_without_a_sign_of_life_is_given_up() {
    let mut quick = patience();
    (quick.ping_every, quick.ping) = (Duration::from_millis(20), Duration::from_secs(2));
    let lane = Lane::new(10, quick);
    let server = Arc::new(Server::new(Does::Echo));
    let freeze = CancellationToken::new();
    let open = || async { Ok((Freezing { io: server.connect(), freeze: freeze.clone() }, forever())) };
    let (mut stream, ended) = timeout(LONG, lane.tunnel(connect, open)).await.unwrap().unwrap();
    freeze.cancel();
    assert_eq!(timeout(LONG, ended.wait()).await.unwrap(), "peer_silent");
    let read = timeout(LONG, stream.read(&mut [0; 1])).await.unwrap();
    assert!(read.is_err(), "no clean end: {read:?}");
    assert!(lane.sweep(Instant::now()));
}

/// A connection from which nothing comes any more.
struct Freezing {
    io: DuplexStream,
    freeze: CancellationToken,
}

impl tokio::io::AsyncRead for Freezing {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        if self.freeze.is_cancelled() {
            return std::task::Poll::Pending;
        }
        std::pin::Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl tokio::io::AsyncWrite for Freezing {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        std::pin::Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn who_is_verified_no_longer_is_cut_off_with_all_tunnels() {
    let (lane, server) = (lane(), Arc::new(Server::new(Does::Echo)));
    let distrust = CancellationToken::new();
    let open = || async {
        let distrust = distrust.clone();
        let lost: Lost = Box::pin(async move {
            distrust.cancelled().await;
            "untrusted_issuer"
        });
        Ok((server.connect(), (lost, Until::FOREVER)))
    };
    let (mut one, ended) = timeout(LONG, lane.tunnel(connect, open)).await.unwrap().unwrap();
    let (mut two, _) = timeout(LONG, lane.tunnel(connect, open)).await.unwrap().unwrap();
    assert_eq!(server.opened(), 1);
    distrust.cancel();
    assert_eq!(timeout(LONG, ended.wait()).await.unwrap(), "untrusted_issuer");
    for stream in [&mut one, &mut two] {
        assert!(timeout(LONG, stream.read(&mut [0; 1])).await.unwrap().is_err());
    }
    assert_eq!(ended.why(), Some("untrusted_issuer"));
    assert!(lane.sweep(Instant::now()));
}

#[tokio::test]
async fn after_its_servers_date_a_connection_takes_no_more_tunnels_and_keeps_those_it_has() {
    let (lane, server) = (lane(), Arc::new(Server::new(Does::Echo)));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let (later, before) = (Until(i64::try_from(now).unwrap() + 3600), Until(i64::try_from(now).unwrap() - 1));
    let open = || async { Ok((server.connect(), (forever().0, later))) };
    for _ in 0..2 {
        timeout(LONG, lane.tunnel(connect, open)).await.unwrap().unwrap();
        assert_eq!(server.opened(), 1);
    }
    let late = Lane::new(10, patience());
    let open = || async { Ok((server.connect(), (forever().0, before))) };
    let (mut first, _) = timeout(LONG, late.tunnel(connect, open)).await.unwrap().unwrap();
    timeout(LONG, late.tunnel(connect, open)).await.unwrap().unwrap();
    assert_eq!(server.opened(), 3);
    first.write_all(b"still").await.unwrap();
    let mut read = [0; 5];
    timeout(LONG, first.read_exact(&mut read)).await.unwrap().unwrap();
    assert_eq!(&read, b"still");
}

#[tokio::test]
async fn a_tunnel_outlives_its_lane() {
    let (lane, server) = (lane(), Arc::new(Server::new(Does::Echo)));
    let (mut stream, _) = tunnel(&lane, &server).await.unwrap();
    drop(lane);
    stream.write_all(b"still").await.unwrap();
    let mut read = [0; 5];
    timeout(LONG, stream.read_exact(&mut read)).await.unwrap().unwrap();
    assert_eq!(&read, b"still");
}

#[test]
fn lanes_are_shared_by_nobody_else() {
    let id = |account: &str| policy::SpiffeId {
        trust_domain: "cluster.local".to_owned(),
        namespace: "ns".to_owned(),
        service_account: account.to_owned(),
    };
    let pod = |slot: u32| Some(PodId { slot, generation: 1 });
    let at = |text: &str| text.parse().unwrap();
    let lanes = Lanes::new();
    let (a, b, c) = (id("a"), id("b"), id("c"));
    let base = From { pod: pod(1), generation: 1, way: mesh::TunnelWay::Sidecar, to: at("10.0.0.1:15008") };
    let between = Between { own: &a, expected: &b, sni: None };
    let count = AtomicUsize::new(0);
    let number = |from, between| *lanes.lane(from, between, || count.fetch_add(1, Ordering::SeqCst));
    for (wanted, from, between) in [
        (0, base, between),
        (1, From { pod: pod(2), ..base }, between),
        (2, From { pod: None, ..base }, between),
        (3, From { generation: 2, ..base }, between),
        (4, From { to: at("10.0.0.2:15008"), ..base }, between),
        (5, From { to: at("10.0.0.1:15009"), ..base }, between),
        (6, base, Between { own: &c, ..between }),
        (7, base, Between { expected: &c, ..between }),
        (8, From { way: mesh::TunnelWay::Hbone(base.to), ..base }, between),
        (9, base, Between { sni: Some("x"), ..between }),
    ] {
        assert_eq!(number(from, between), wanted);
        assert_eq!(number(from, between), wanted, "found again");
    }
    lanes.forget(pod(1).unwrap());
    assert_eq!(number(base, between), 10);
    assert_eq!(number(From { pod: None, ..base }, between), 2, "others' stay");
    lanes.sweep(|_| true);
    assert_eq!(number(From { pod: None, ..base }, between), 11);
}
