//! Each limit, by its status and its name in the record.

use super::*;

async fn refused_by(limits: Limits, request: &[u8]) -> (String, &'static str) {
    let upstream = Upstream::ok().await;
    let house = House::start(upstream.address, limits).await;
    let response = house.say(request).await;
    let story = house.stories(1).await.remove(0);
    assert_eq!(story.status.unwrap().to_string(), status(&response));
    (status(&response).to_owned(), story.refused.unwrap_or_default())
}

#[tokio::test]
async fn heads() {
    let large = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(70_000));
    let found = refused_by(Limits::default(), large.as_bytes()).await;
    assert_eq!(found, ("431".to_owned(), "head_bytes"));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "a: b\r\n".repeat(100));
    let found = refused_by(Limits::default(), many.as_bytes()).await;
    assert_eq!(found, ("431".to_owned(), "header_count"));
    let found = refused_by(short(), b"GET / HTTP/1.1\r\nHost: a\r\n").await;
    assert_eq!(found, ("408".to_owned(), "head_timeout"));
}

#[tokio::test]
async fn heads_as_large_as_the_limit_pass() {
    let upstream = Upstream::ok().await;
    let house = House::start(upstream.address, Limits::default()).await;
    let large =
        format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: {}\r\n\r\n", "x".repeat(60_000));
    assert_eq!(status(&house.say(large.as_bytes()).await), "200");
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{}\r\n", "a: b\r\n".repeat(98));
    assert_eq!(status(&house.say(many.as_bytes()).await), "200");
}

#[tokio::test]
async fn bodies_by_their_length() {
    let limits = Limits { request_body_bytes: 10, ..Limits::default() };
    let request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello world";
    assert_eq!(refused_by(limits, request).await, ("413".to_owned(), "request_body_bytes"));
}

#[tokio::test]
async fn bodies_as_they_are_counted() {
    let limits = Limits { request_body_bytes: 10, ..Limits::default() };
    let request = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n";
    assert_eq!(refused_by(limits, request).await, ("413".to_owned(), "request_body_bytes"));
}

#[tokio::test]
async fn bodies_that_pause() {
    let request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello";
    assert_eq!(refused_by(short(), request).await, ("408".to_owned(), "body_idle_timeout"));
}

#[tokio::test]
async fn idle_connections_are_closed() {
    let upstream = Upstream::ok().await;
    let house = House::start(upstream.address, short()).await;
    let mut socket = house.connect().await;
    socket.write_all(GET).await.unwrap();
    read_until(&mut socket, "\r\n\r\nok").await;
    let began = std::time::Instant::now();
    assert_eq!(read_all(&mut socket).await, "");
    assert!(began.elapsed() >= Duration::from_millis(500), "{:?}", began.elapsed());
    let mut silent = house.connect().await;
    assert_eq!(read_all(&mut silent).await, "");
    house.stories(1).await;
}

#[tokio::test]
async fn requests_under_way() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let limits = Limits { requests: 1, ..Limits::default() };
    let house = House::start(listener.local_addr().unwrap(), limits).await;
    let mut first = house.connect().await;
    first.write_all(LAST_GET).await.unwrap();
    let (mut upstream, _) = listener.accept().await.unwrap();
    read_until(&mut upstream, "\r\n\r\n").await;
    let second = house.say(LAST_GET).await;
    assert_eq!(status(&second), "503");
    let story = house.stories(1).await.remove(0);
    assert_eq!((story.refused, story.flags), (Some("requests"), "UO"));
    upstream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    assert_eq!(status(&read_all(&mut first).await), "200");
    house.stories(2).await;
    let mut third = house.connect().await;
    third.write_all(LAST_GET).await.unwrap();
    read_until(&mut upstream, "\r\n\r\n").await;
    upstream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    assert_eq!(status(&read_all(&mut third).await), "200", "the permit came back");
}

#[test]
fn requests_of_one_workload_do_not_starve_another() {
    let limits = Limits { requests_per_workload: 1, ..Limits::default() };
    let gauges = super::super::Gauges::new(&limits);
    let name = |name: &str| policy::WorkloadName { namespace: "n".into(), name: name.into() };
    let held = gauges.of_workload(&name("a")).unwrap();
    assert!(gauges.of_workload(&name("a")).is_err());
    assert!(gauges.of_workload(&name("b")).is_ok());
    drop(held);
    assert!(gauges.of_workload(&name("a")).is_ok());
}

#[tokio::test]
async fn connections() {
    let upstream = Upstream::ok().await;
    let house = House::start(upstream.address, Limits { connections: 1, ..Limits::default() }).await;
    let mut first = house.connect().await;
    first.write_all(GET).await.unwrap();
    read_until(&mut first, "\r\n\r\nok").await;
    let mut second = house.connect().await;
    let mut buffer = [0; 16];
    assert!(matches!(second.read(&mut buffer).await, Ok(0) | Err(_)));
    let stories = house.stories(2).await;
    assert_eq!(stories[1].refused, Some("connections"));
}
