//! How connections end.

use super::*;

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
