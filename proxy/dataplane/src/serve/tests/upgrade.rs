//! WebSocket and its like: bytes both ways after a 101 that was asked for.

use super::*;

const ASK: &[u8] = b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// Accepts the upgrade, then echoes.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let head = read_until(&mut socket, "\r\n\r\n").await;
                assert!(head.contains("upgrade: websocket"), "{head}");
                assert!(head.contains("connection: upgrade"), "{head}");
                let answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: y\r\n\r\nhello";
                socket.write_all(answer).await.unwrap();
                let (mut read, mut write) = socket.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn bytes_pass_both_ways_whatever_they_are() {
    let house = House::start(echo().await, Limits::default()).await;
    let mut socket = house.connect().await;
    socket.write_all(ASK).await.unwrap();
    let answer = read_until(&mut socket, "\r\n\r\nhello").await.to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 101 "), "{answer}");
    assert!(answer.contains("upgrade: websocket") && answer.contains("connection: upgrade"), "{answer}");
    assert!(answer.contains("sec-websocket-accept: y"), "{answer}");
    for frame in ["GET /SMUGGLED HTTP/1.1\nHost: a\n\n", "\0\r\n\r\n", "end"] {
        socket.write_all(frame.as_bytes()).await.unwrap();
        read_until(&mut socket, frame).await;
    }
    socket.shutdown().await.unwrap();
    assert_eq!(read_all(&mut socket).await, "");
    let story = house.stories(1).await.remove(0);
    assert_eq!((story.status, story.flags), (Some(101), "-"));
    assert_eq!(story.request_bytes + 5, story.response_bytes);
}

#[tokio::test]
async fn an_idle_tunnel_is_closed() {
    let house = House::start(echo().await, short()).await;
    let mut socket = house.connect().await;
    socket.write_all(ASK).await.unwrap();
    read_until(&mut socket, "hello").await;
    assert_eq!(read_all(&mut socket).await, "");
    assert_eq!(house.stories(1).await[0].flags, "SI");
}

#[tokio::test]
async fn bytes_sent_ahead_of_a_refused_upgrade_are_requests_again() {
    let upstream = Upstream::ok().await;
    let house = House::start(upstream.address, Limits::default()).await;
    let bad = b"GET /SMUGGLED HTTP/1.1\nHost: a\n\n";
    let response = house.say(&[ASK, bad].concat()).await;
    assert_eq!(response.matches("200 OK").count(), 1, "{response}");
    assert_eq!(response.matches("400 Bad Request").count(), 1, "{response}");
    assert!(!upstream.seen().contains("SMUGGLED"));
}

#[tokio::test]
async fn a_tunnel_open_at_the_drains_end_is_cut() {
    let limits = Limits { drain_timeout_ms: 300, ..Limits::default() };
    let house = House::start(echo().await, limits).await;
    let mut socket = house.connect().await;
    socket.write_all(ASK).await.unwrap();
    read_until(&mut socket, "hello").await;
    let report = house.drain().await;
    assert_eq!(report.cut, 1, "{report:?}");
    assert_eq!(read_all(&mut socket).await, "");
}
