//! Bodies pass as they come, both ways; their ends are true ends.

use super::*;

#[tokio::test]
async fn the_first_chunk_of_a_request_arrives_before_the_last_is_sent() {
    let upstream = Upstream::ok().await;
    let house = House::start(upstream.address, Limits::default()).await;
    let mut socket = house.connect().await;
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n";
    socket.write_all(head).await.unwrap();
    for _ in 0..500 {
        if upstream.seen().contains("first") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(upstream.seen().contains("5\r\nfirst\r\n"), "{}", upstream.seen());
    socket.write_all(b"4\r\nlast\r\n0\r\n\r\n").await.unwrap();
    read_until(&mut socket, "\r\n\r\nok").await;
    assert!(upstream.seen().ends_with("0\r\n\r\n"), "{}", upstream.seen());
    let story = house.stories(1).await.remove(0);
    assert_eq!((story.request_bytes, story.response_bytes), (9, 2));
}

/// An upstream that sends the parts of an answer when it is told to.
pub(super) async fn slow_upstream(
    parts: &'static [&'static str],
) -> (SocketAddr, tokio::sync::mpsc::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (go, mut gone) = tokio::sync::mpsc::channel::<()>(8);
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        read_until(&mut socket, "\r\n\r\n").await;
        for part in parts {
            socket.write_all(part.as_bytes()).await.unwrap();
            if gone.recv().await.is_none() {
                return;
            }
        }
    });
    (address, go)
}

#[tokio::test]
async fn the_first_chunk_of_a_response_arrives_before_the_last_is_sent() {
    let (upstream, go) = slow_upstream(&[
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n",
        "4\r\nlast\r\n0\r\n\r\n",
    ])
    .await;
    let house = House::start(upstream, Limits::default()).await;
    let mut socket = house.connect().await;
    socket.write_all(GET).await.unwrap();
    read_until(&mut socket, "5\r\nfirst\r\n").await;
    assert!(house.stories.0.lock().unwrap().is_empty(), "the story is told at the end");
    go.send(()).await.unwrap();
    read_until(&mut socket, "4\r\nlast\r\n0\r\n\r\n").await;
    assert_eq!(house.stories(1).await[0].response_bytes, 9);
}

#[tokio::test]
async fn a_response_that_the_upstream_cuts_is_cut_for_the_client() {
    for head in [
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nfirst",
    ] {
        let (upstream, go) = slow_upstream(Box::leak(Box::new([head]))).await;
        let house = House::start(upstream, Limits::default()).await;
        let mut socket = house.connect().await;
        socket.write_all(GET).await.unwrap();
        let mut begun = String::new();
        while !begun.contains("first") {
            let mut buffer = [0; 1024];
            let length = socket.read(&mut buffer).await.unwrap();
            begun.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        drop(go);
        let mut rest = Vec::new();
        let ended = socket.read_to_end(&mut rest).await;
        assert!(ended.is_err(), "reset, not closed: {ended:?}");
        assert!(!String::from_utf8_lossy(&rest).contains("0\r\n\r\n"));
        assert_eq!(house.stories(1).await[0].flags, "UC");
    }
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let upstream = Upstream::answering(&[
        "HTTP/1.1 200 OK\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n",
    ])
    .await;
    let house = House::start(upstream.address, Limits::default()).await;
    let request = "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: te, close\r\nTrailer: x-in\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-In: 5\r\n\r\n";
    let response = house.say(request.as_bytes()).await.to_ascii_lowercase();
    assert!(response.contains("x-sum: 7"), "{response}");
    let seen = upstream.seen();
    assert!(seen.contains("te: trailers"), "{seen}");
    assert!(seen.contains("x-in: 5"), "{seen}");
}

#[tokio::test]
async fn a_denied_request_is_not_told_to_continue() {
    let upstream = Upstream::ok().await;
    let house = House::start(upstream.address, Limits::default()).await;
    let head = "HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    let mut socket = house.connect().await;
    socket.write_all(format!("POST /denied {head}").as_bytes()).await.unwrap();
    let response = read_all(&mut socket).await;
    assert_eq!(status(&response), "403", "{response}");
    assert!(response.contains("connection: close"), "{response}");
    let mut socket = house.connect().await;
    socket.write_all(format!("POST / {head}").as_bytes()).await.unwrap();
    let response = read_until(&mut socket, "\r\n\r\n").await;
    assert_eq!(response, "HTTP/1.1 100 Continue\r\n\r\n");
    socket.write_all(b"hello").await.unwrap();
    let response = read_until(&mut socket, "\r\n\r\nok").await;
    assert_eq!(status(&response), "200");
    let seen = upstream.seen();
    assert!(!seen.contains("expect") && seen.ends_with("hello"), "{seen}");
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_exchange_upstream() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let house = House::start(listener.local_addr().unwrap(), Limits::default()).await;
    let mut socket = house.connect().await;
    socket.write_all(GET).await.unwrap();
    let (mut upstream, _) = listener.accept().await.unwrap();
    read_until(&mut upstream, "\r\n\r\n").await;
    drop(socket);
    assert_eq!(read_all(&mut upstream).await, "");
    let story = house.stories(1).await.remove(0);
    assert_eq!((story.flags, story.status), ("DC", None));
}

#[tokio::test]
async fn a_slow_reader_holds_the_upstream_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let house = House::start(listener.local_addr().unwrap(), Limits::default()).await;
    let mut client = house.connect().await;
    client.write_all(GET).await.unwrap();
    let (mut upstream, _) = listener.accept().await.unwrap();
    read_until(&mut upstream, "\r\n\r\n").await;
    let total = 64 * 1024 * 1024;
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {total}\r\n\r\n");
    upstream.write_all(head.as_bytes()).await.unwrap();
    let sent = Arc::new(Mutex::new(0));
    let count = Arc::clone(&sent);
    tokio::spawn(async move {
        let part = vec![b'x'; 64 * 1024];
        for _ in 0..total / part.len() {
            upstream.write_all(&part).await.unwrap();
            *count.lock().unwrap() += part.len();
        }
        std::future::pending::<()>().await;
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let ahead = *sent.lock().unwrap();
    assert!(ahead < total / 2, "{ahead} bytes are held for a client that reads nothing");
    let mut read = 0;
    let mut buffer = vec![0; 1 << 20];
    while read < total {
        let length = client.read(&mut buffer).await.unwrap();
        assert!(length > 0);
        read += length;
    }
    assert_eq!(house.stories(1).await[0].response_bytes, total as u64);
}

#[tokio::test]
async fn a_response_before_the_requests_end_does_not_stop_the_request() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let house = House::start(listener.local_addr().unwrap(), Limits::default()).await;
    let mut client = house.connect().await;
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    let (mut upstream, _) = listener.accept().await.unwrap();
    read_until(&mut upstream, "1\r\na\r\n").await;
    let response = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nA\r\n";
    upstream.write_all(response.as_bytes()).await.unwrap();
    read_until(&mut client, "1\r\nA\r\n").await;
    client.write_all(b"1\r\nb\r\n0\r\n\r\n").await.unwrap();
    read_until(&mut upstream, "1\r\nb\r\n0\r\n\r\n").await;
    upstream.write_all(b"1\r\nB\r\n0\r\n\r\n").await.unwrap();
    read_until(&mut client, "1\r\nB\r\n0\r\n\r\n").await;
    assert_eq!(house.stories(1).await[0].request_bytes, 2);
}
