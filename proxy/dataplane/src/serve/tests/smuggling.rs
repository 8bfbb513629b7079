//! What two servers could read differently never reaches the upstream, not one byte of it.

use super::*;

/// Each is refused with 400 and a closed connection; `SMUGGLED` must never be seen upstream.
const CORPUS: &[&str] = &[
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nSMUGGLED",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 40\r\n\r\n0\r\n\r\nGET /SMUGGLED HTTP/1.1\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 8\r\n\r\nSMUGGLED",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8, 0\r\n\r\nSMUGGLED",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +8\r\n\r\nSMUGGLED",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 8\r\n\r\nSMUGGLED",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\nSMUGGLED",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\nSMUGGLED",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nSMUGGLED",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\nSMUGGLED",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\t: chunked\r\n\r\n0\r\n\r\nSMUGGLED",
    "POST / HTTP/1.1\r\nHost: a\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nSMUGGLED",
    "POST / HTTP/1.1\r\nHost: a\r\nX: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nSMUGGLED",
    "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nSMUGGLED",
    "GET / HTTP/1.1\r\nHost: a\r\nHost: SMUGGLED\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: \0SMUGGLED\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n SMUGGLED\r\n\r\n",
    "GET /SMUGGLED\r\n\r\n",
    "GET /SMUGGLED HTTP/0.9\r\n\r\n",
    "GET /SMUGGLED HTTP/1.1\nHost: a\n\n",
    " GET /SMUGGLED HTTP/1.1\r\nHost: a\r\n\r\n",
    "CONNECT SMUGGLED:443 HTTP/1.1\r\nHost: SMUGGLED:443\r\n\r\n",
    "GET http://SMUGGLED/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "G(T /SMUGGLED HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nBad Name: SMUGGLED\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX\x0b: SMUGGLED\r\n\r\n",
];

#[tokio::test]
async fn ambiguous_requests_are_refused_and_nothing_of_them_is_forwarded() {
    let upstream = Upstream::ok().await;
    let house = House::start(upstream.address, Limits::default()).await;
    for (n, request) in CORPUS.iter().enumerate() {
        let response = house.say(request.as_bytes()).await;
        assert_eq!(status(&response), "400", "{request:?} got {response:?}");
        let stories = house.stories(n + 1).await;
        let story = stories.last().unwrap();
        assert_eq!(story.status, Some(400), "{request:?}");
        assert!(story.refused.is_some(), "{request:?}");
    }
    assert_eq!(upstream.seen(), "");
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn a_refused_head_behind_good_ones_is_refused_after_they_were_answered() {
    let upstream = Upstream::ok().await;
    let house = House::start(upstream.address, Limits::default()).await;
    for request in CORPUS {
        let response = house.say(&[GET, GET, request.as_bytes()].concat()).await;
        assert_eq!(response.matches("200 OK").count(), 2, "{request:?} got {response:?}");
        assert_eq!(response.matches("400 Bad Request").count(), 1, "{request:?} got {response:?}");
    }
    assert!(!upstream.seen().contains("SMUGGLED"), "{}", upstream.seen());
}

#[tokio::test]
async fn broken_chunks_end_the_exchange_at_both_sides() {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for body in [
        "5\nhello\r\n0\r\n\r\nSMUGGLED",
        "+5\r\nhello\r\n0\r\n\r\nSMUGGLED",
        "0x5\r\nhello\r\n0\r\n\r\nSMUGGLED",
        "5\r\nhelloSMUGGLED\r\n0\r\n\r\n",
        "10000000000000005\r\nhelloSMUGGLED",
        "0\r\nContent-Length: 3\r\n\r\nSMUGGLED",
        "0\r\nX: SMUGGLED\n\r\n",
    ] {
        let upstream = Upstream::ok().await;
        let house = House::start(upstream.address, Limits::default()).await;
        let response = house.say(format!("{head}{body}").as_bytes()).await;
        assert_eq!(status(&response), "400", "{body:?} got {response:?}");
        assert_eq!(house.stories(1).await[0].refused, Some("malformed"), "{body:?}");
        let seen = upstream.seen();
        assert!(!seen.contains("SMUGGLED") && !seen.ends_with("0\r\n\r\n"), "{body:?}: {seen:?}");
    }
}

#[tokio::test]
async fn hop_by_hop_headers_stay_here() {
    let upstream = Upstream::answering(&[
        "HTTP/1.1 200 OK\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\ncontent-length: 0\r\n\r\n",
    ])
    .await;
    let house = House::start(upstream.address, Limits::default()).await;
    let request =
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close, x-mine\r\nX-Mine: 1\r\nKeep-Alive: 5\r\n\r\n";
    let response = house.say(request).await.to_ascii_lowercase();
    assert!(!response.contains("x-hop") && !response.contains("keep-alive"), "{response}");
    let seen = upstream.seen();
    assert!(!seen.contains("x-mine") && !seen.contains("keep-alive"), "{seen}");
}
