//! Requests that are under way while the mesh changes.

use http_body_util::BodyExt;

use super::{
    http2::{client, full, get},
    lasting::{before, policy, server, start},
    streaming::slow_upstream,
    *,
};
use crate::testing::{BASE, GATEWAY};

const FIRST: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n";
const LAST: &str = "4\r\nlast\r\n0\r\n\r\n";

fn deny(method: &str) -> String {
    policy("deny", &format!("[{{to: [{{operation: {{methods: [{method}]}}}}]}}]"))
}

#[tokio::test]
async fn not_a_byte_of_an_answer_follows_the_change_that_forbids_it() {
    let (upstream, go) = slow_upstream(&[FIRST, LAST]).await;
    let (house, world) = before(upstream, &[BASE]);
    let mut socket = house.connect().await;
    socket.write_all(GET).await.unwrap();
    read_until(&mut socket, "first\r\n").await;
    world.publish(&[BASE, &deny("GET")], 2);
    go.send(()).await.unwrap();
    assert_eq!(cut(&mut socket).await, "");
    let story = house.stories(1).await.remove(0);
    assert_eq!((story.status, &*story.details, story.response_bytes), (Some(200), "policy_changed", 5));
}

#[tokio::test]
async fn an_answer_that_is_permitted_still_goes_on() {
    let (upstream, go) = slow_upstream(&[FIRST, LAST]).await;
    let (house, world) = before(upstream, &[BASE]);
    let mut socket = house.connect().await;
    socket.write_all(GET).await.unwrap();
    read_until(&mut socket, "first\r\n").await;
    world.publish(&[BASE, &deny("POST")], 2);
    go.send(()).await.unwrap();
    read_until(&mut socket, LAST).await;
    assert_eq!(house.stories(1).await[0].details, "via_upstream");
}

#[tokio::test]
async fn an_answer_that_comes_after_the_change_is_not_given() {
    let (upstream, go) = slow_upstream(&["", "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nrecord"]).await;
    let (house, world) = before(upstream, &[BASE]);
    let mut socket = house.connect().await;
    socket.write_all(GET).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    world.publish(&[BASE, &deny("GET")], 2);
    go.send(()).await.unwrap();
    let answer = read_until(&mut socket, "denied").await;
    assert_eq!(status(&answer), "403", "{answer}");
    let story = house.stories(1).await.remove(0);
    assert_eq!(story.status, Some(403));
    assert!(story.details.starts_with("rbac_access_denied"), "{story:?}");
}

#[tokio::test]
async fn an_upload_ends_with_the_change_that_forbids_it() {
    let upstream = Upstream::ok().await;
    let (house, world) = before(upstream.address, &[BASE]);
    let mut socket = house.connect().await;
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n";
    socket.write_all(head).await.unwrap();
    for _ in 0..500 {
        if upstream.seen().contains("first") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    world.publish(&[BASE, &deny("GET")], 2);
    socket.write_all(b"6\r\nsecond\r\n").await.unwrap();
    world.publish(&[BASE, &deny("POST")], 3);
    let answer = read_all(&mut socket).await;
    assert_eq!(status(&answer), "403", "{answer}");
    assert!(!upstream.seen().contains("0\r\n\r\n"), "it must not seem whole: {}", upstream.seen());
    assert_eq!(house.stories(1).await[0].status, Some(403));
}

#[tokio::test]
async fn of_two_answers_on_one_connection_the_forbidden_one_ends() {
    let (house, world) = before(server().await, &[BASE]);
    let mut sender = client(house.address).await;
    let mut patient = sender.send_request(get("/Patient").body(full("")).unwrap()).await.unwrap();
    let mut other = sender.send_request(get("/Observation").body(full("")).unwrap()).await.unwrap();
    assert!(patient.frame().await.unwrap().is_ok() && other.frame().await.unwrap().is_ok());
    world.publish(&[BASE, &policy("deny", "[{to: [{operation: {paths: [\"/Patient\"]}}]}]")], 2);
    let cut = async {
        while let Some(frame) = patient.frame().await {
            if frame.is_err() {
                return;
            }
        }
        panic!("it must not seem whole");
    };
    tokio::time::timeout(Duration::from_secs(5), cut).await.unwrap();
    for _ in 0..3 {
        assert!(other.frame().await.unwrap().is_ok());
    }
    assert_eq!(house.stories(1).await[0].details, "policy_changed");
}

#[tokio::test]
async fn a_request_that_is_forbidden_while_it_is_delayed_is_not_sent() {
    let upstream = Upstream::ok().await;
    let delayed = GATEWAY.replace(
        "  - match: [{uri: {prefix: /api/}}]\n",
        "  - match: [{uri: {prefix: /api/}}]\n    fault: {delay: {fixedDelay: 300ms, percentage: {value: 100}}}\n",
    );
    assert_ne!(delayed, GATEWAY);
    let labels = [("istio".to_owned(), "ingressgateway".to_owned())].into();
    let entry = Entry::Gateway(mesh::routing::GatewayKey { labels, port: 80 });
    let (house, world) = start(entry, upstream.address, &[BASE, &delayed]);
    let ask = "DELETE /api/Patient/1 HTTP/1.1\r\nHost: fhir.example\r\n\r\n";
    let mut socket = house.connect().await;
    socket.write_all(ask.as_bytes()).await.unwrap();
    read_until(&mut socket, "ok").await;
    assert!(upstream.seen().contains("DELETE /Patient/1"), "{}", upstream.seen());
    let before = upstream.seen();
    socket.write_all(ask.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    world.publish(&[BASE, &delayed, &deny("DELETE")], 2);
    let answer = read_until(&mut socket, "denied").await;
    assert_eq!((status(&answer), upstream.seen()), ("403", before));
}

/// Until the connection is closed or reset.
async fn cut(socket: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(5), socket.read_to_end(&mut bytes)).await;
    assert!(read.is_ok(), "it goes on");
    String::from_utf8_lossy(&bytes).into_owned()
}
