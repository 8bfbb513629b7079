//! Upstream faults, each told apart; never a hung client.

use super::*;

async fn fault(answer: &str) -> (String, &'static str) {
    let upstream = Upstream::answering(&[answer]).await;
    let house = House::start(upstream.address, short()).await;
    let response = house.say(LAST_GET).await;
    let story = house.stories(1).await.remove(0);
    assert_eq!(story.status.unwrap().to_string(), status(&response));
    (status(&response).to_owned(), story.flags)
}

#[tokio::test]
async fn a_refused_connection_is_503_uf() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let house = House::start(free, short()).await;
    let response = house.say(LAST_GET).await;
    assert_eq!(status(&response), "503");
    assert!(response.contains("remote connection failure"), "{response}");
    assert_eq!(house.stories(1).await[0].flags, "UF");
}

#[tokio::test]
async fn closing_before_the_head_is_503_uc() {
    assert_eq!(fault("").await, ("503".to_owned(), "UC"));
    assert_eq!(fault("HTTP/1.1 200 OK\r\nx: Connection: close").await, ("503".to_owned(), "UC"));
}

#[tokio::test]
async fn what_is_not_http_is_502_upe() {
    let large = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(200_000));
    for answer in [
        "SSH-2.0-OpenSSH_9.9\r\n",
        "HTTP/1.1 abc\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: 1\r\n folded\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX : 1\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        &large,
    ] {
        let cut: String = answer.chars().take(80).collect();
        assert_eq!(fault(answer).await, ("502".to_owned(), "UPE"), "{cut:?}");
    }
}

#[tokio::test]
async fn silence_is_504_ut() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let house = House::start(listener.local_addr().unwrap(), short()).await;
    let response = house.say(LAST_GET).await;
    assert_eq!(status(&response), "504");
    assert_eq!(house.stories(1).await[0].flags, "UT");
}

#[tokio::test]
async fn an_endless_head_ends_with_the_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        while socket.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let house = House::start(address, short()).await;
    assert_eq!(status(&house.say(LAST_GET).await), "504");
}

#[tokio::test]
async fn a_response_that_pauses_is_reset() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await.unwrap();
        std::future::pending::<()>().await;
    });
    let house = House::start(address, short()).await;
    let mut socket = house.connect().await;
    socket.write_all(GET).await.unwrap();
    let mut bytes = Vec::new();
    assert!(socket.read_to_end(&mut bytes).await.is_err());
    assert_eq!(house.stories(1).await[0].flags, "SI");
}

#[tokio::test]
async fn a_routes_timeout_ends_a_response_under_way() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n").await.unwrap();
        while socket.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let terms = Terms { timeout: Some(Duration::from_millis(300)), retries: None };
    let house = House::start_with(address, Limits::default(), terms, None).await;
    let mut socket = house.connect().await;
    socket.write_all(GET).await.unwrap();
    let mut bytes = Vec::new();
    assert!(socket.read_to_end(&mut bytes).await.is_err());
    assert_eq!(house.stories(1).await[0].flags, "UT");
}

#[tokio::test]
async fn informational_responses_are_not_passed_on() {
    let answer = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(fault(answer).await, ("200".to_owned(), "-"));
}

#[tokio::test]
async fn a_long_upload_is_no_timeout_an_upstream_that_stops_reading_is() {
    let upstream = Upstream::ok().await;
    let limits = Limits { body_idle_timeout_ms: 5_000, ..short() };
    let house = House::start(upstream.address, limits.clone()).await;
    let mut socket = house.connect().await;
    socket.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n").await.unwrap();
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        socket.write_all(b"x").await.unwrap();
    }
    assert_eq!(status(&read_until(&mut socket, "ok").await), "200");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let house = House::start(listener.local_addr().unwrap(), limits).await;
    let mut socket = house.connect().await;
    socket.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 60000000\r\n\r\n").await.unwrap();
    let (mut read, mut write) = socket.into_split();
    tokio::spawn(async move { while write.write_all(&[b'x'; 65536]).await.is_ok() {} });
    assert_eq!(status(&read_until(&mut read, "timeout").await), "504");
}

#[tokio::test]
async fn a_loop_to_the_proxy_itself_is_refused() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let house = House::start_on(address, address, Default::default(), None);
    assert_eq!(status(&house.say(LAST_GET).await), "500");
    house.stories(1).await;
}

/// The answer to a flood waits, and what waits takes no other request's place.
#[tokio::test]
async fn answers_to_bad_signatures_keep_their_pace_and_no_place() {
    let upstream = Upstream::ok().await;
    let limits = Limits { requests: 1, bad_signatures_per_second: 1, ..Limits::default() };
    let house = House::start(upstream.address, limits).await;
    let forged = b"GET /forged HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let began = std::time::Instant::now();
    let _ = house.say(forged).await;
    let (second, other) = tokio::join!(house.say(forged), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        house.say(LAST_GET).await
    });
    assert_eq!((status(&second), status(&other)), ("401", "200"));
    assert!(began.elapsed() >= Duration::from_millis(900), "one a second: {:?}", began.elapsed());
}
