//! Upstream connections: used again, replaced when stale; retries.

use super::*;

const CLOSED: &str = "";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";

#[tokio::test]
async fn connections_are_used_again_by_other_clients() {
    let upstream = Upstream::answering(&[
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        OK,
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n",
        OK,
    ])
    .await;
    let house = House::start(upstream.address, Limits::default()).await;
    for _ in 0..4 {
        house.say(LAST_GET).await;
    }
    let post = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi";
    for _ in 0..3 {
        assert_eq!(status(&house.say(post).await), "200");
    }
    assert_eq!(upstream.connections(), 1);
    assert!(house.stories(7).await.iter().all(|story| story.flags == "-"));
}

#[tokio::test]
async fn a_connection_that_says_close_is_not_used_again() {
    let close = "HTTP/1.1 200 OK\r\nConnection: close\r\ncontent-length: 2\r\n\r\nok";
    let upstream = Upstream::answering(&[close]).await;
    let house = House::start(upstream.address, Limits::default()).await;
    for _ in 0..3 {
        assert_eq!(status(&house.say(LAST_GET).await), "200");
    }
    assert_eq!(upstream.connections(), 3);
}

#[tokio::test]
async fn a_connection_closed_while_idle_is_replaced() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let house = House::start(listener.local_addr().unwrap(), Limits::default()).await;
    for _ in 0..3 {
        let mut client = house.connect().await;
        let post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
        client.write_all(post).await.unwrap();
        let (mut upstream, _) = listener.accept().await.unwrap();
        read_until(&mut upstream, "hi").await;
        upstream.write_all(OK.as_bytes()).await.unwrap();
        assert_eq!(status(&read_until(&mut client, "ok").await), "200");
        drop(upstream);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_get_lost_on_a_used_connection_is_sent_again_a_post_is_not() {
    let upstream = Upstream::answering(&[OK, CLOSED, OK]).await;
    let house = House::start(upstream.address, Limits::default()).await;
    assert_eq!(status(&house.say(LAST_GET).await), "200");
    assert_eq!(status(&house.say(LAST_GET).await), "200", "sent again");
    assert_eq!(upstream.connections(), 2);
    let upstream = Upstream::answering(&[OK, CLOSED, OK]).await;
    let house = House::start(upstream.address, Limits::default()).await;
    let post = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi";
    assert_eq!(status(&house.say(post).await), "200");
    assert_eq!(status(&house.say(post).await), "503", "it may have had its effect");
    assert_eq!(upstream.seen().matches("POST").count(), 2);
}

#[tokio::test]
async fn retries_by_the_routes_policy() {
    let gateway_error = RetryOn { gateway_error: true, ..RetryOn::default() };
    for (answers, on, expected, requests) in [
        ([BUSY, BUSY, OK], gateway_error.clone(), "200", 3),
        ([BUSY, BUSY, BUSY], gateway_error.clone(), "503", 3),
        ([CLOSED, CLOSED, OK], gateway_error, "200", 3),
        ([CLOSED, OK, OK], RetryOn { connect_failure: true, ..RetryOn::default() }, "503", 1),
        ([BUSY, OK, OK], RetryOn { statuses: vec![503], ..RetryOn::default() }, "200", 2),
        ([BUSY, OK, OK], RetryOn { reset: true, ..RetryOn::default() }, "503", 1),
    ] {
        let upstream = Upstream::answering(&answers).await;
        let house = House::start_with(upstream.address, Limits::default(), retries(on.clone()), None).await;
        assert_eq!(status(&house.say(LAST_GET).await), expected, "{on:?}");
        assert_eq!(upstream.seen().matches("GET / ").count(), requests, "{on:?}");
        house.stories(1).await;
    }
}

#[tokio::test]
async fn a_request_with_a_body_is_not_retried_once_it_was_sent() {
    let on = RetryOn { server_error: true, ..RetryOn::default() };
    let upstream = Upstream::answering(&[BUSY, OK]).await;
    let house = House::start_with(upstream.address, Limits::default(), retries(on), None).await;
    let post = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi";
    assert_eq!(status(&house.say(post).await), "503");
    assert_eq!(upstream.seen().matches("POST").count(), 1);
}

#[tokio::test]
async fn too_many_pending_connects_overflow() {
    let limits = Limits { pending_per_upstream: 0, ..Limits::default() };
    let upstream = Upstream::ok().await;
    let house = House::start(upstream.address, limits).await;
    assert_eq!(status(&house.say(LAST_GET).await), "503");
    assert_eq!(house.stories(1).await[0].flags, "UO");
}

#[tokio::test]
async fn idle_upstream_connections_are_closed_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let limits = Limits { upstream_idle_timeout_ms: 100, ..Limits::default() };
    let house = House::start(listener.local_addr().unwrap(), limits).await;
    let mut client = house.connect().await;
    client.write_all(GET).await.unwrap();
    let (mut upstream, _) = listener.accept().await.unwrap();
    read_until(&mut upstream, "\r\n\r\n").await;
    upstream.write_all(OK.as_bytes()).await.unwrap();
    read_until(&mut client, "ok").await;
    assert_eq!(read_all(&mut upstream).await, "");
}

/// Some servers answer 411 to a POST that says nothing of a body (RFC 9110 §8.6); Envoy says it too.
#[tokio::test]
async fn a_method_that_could_have_a_body_says_that_it_has_none() {
    for (method, says) in [("POST", true), ("PUT", true), ("PATCH", true), ("GET", false), ("DELETE", false)]
    {
        let upstream = Upstream::ok().await;
        let house = House::start(upstream.address, Limits::default()).await;
        let request = format!("{method} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert_eq!(status(&house.say(request.as_bytes()).await), "200");
        let seen = upstream.seen().to_ascii_lowercase();
        assert_eq!(seen.contains("content-length: 0\r\n"), says, "{method}: {seen}");
    }
}
