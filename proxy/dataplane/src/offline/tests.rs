#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bytes::Bytes;
use http::Version;

use super::{Exchange, OfflineVerdict};
use crate::testing::{BASE, OUTSIDER, World, exchange, to_server};

fn plain(method: &str, target: &str, headers: &[(&str, &str)]) -> Exchange {
    exchange(to_server(OUTSIDER, None), method, target, headers)
}

#[tokio::test]
async fn what_the_codec_refuses_is_400() {
    let world = World::new(&[BASE]);
    for (method, target, headers) in [
        ("GET", "/a b", &[][..]),
        ("G T", "/", &[]),
        ("GET", "", &[]),
        ("GET", "/", &[("x y", "z")]),
        ("GET", "/", &[("x", "a\r\nb: c")]),
        ("GET", "\\admin", &[]),
        ("GET", "/", &[("Host", "a"), ("Host", "b")]),
    ] {
        let outcome = world.ask(plain(method, target, headers)).await;
        assert_eq!(outcome.status.unwrap(), 400, "{method} {target}");
        assert_eq!(outcome.verdict, OfflineVerdict::Deny);
        assert!(outcome.forwarded.is_none());
    }
}

#[tokio::test]
async fn http2_reaches_policy_with_any_method() {
    let world = World::new(&[BASE]);
    let h2 = |method| Exchange { version: Version::HTTP_2, ..plain(method, "/x", &[("Host", "a:81")]) };
    let outcome = world.ask(h2("get")).await;
    let forwarded = outcome.forwarded.unwrap();
    assert_eq!((forwarded.method.as_str(), forwarded.path.as_str()), ("get", "/x"));
    assert_eq!(forwarded.headers.get("host").unwrap(), "a:81");
    assert_eq!(world.ask(plain("get", "/x", &[])).await.status.unwrap(), 400);
    let two = Exchange { version: Version::HTTP_2, ..plain("GET", "/x", &[("Host", "a"), ("Host", "b")]) };
    assert_eq!(world.ask(two).await.status.unwrap(), 400);
}

#[tokio::test]
async fn a_body_has_its_length_and_the_answer_is_shown() {
    let world = World::new(&[BASE]);
    let post = Exchange { body: Bytes::from("abc"), ..plain("POST", "/x", &[]) };
    let outcome = world.ask(post).await;
    assert_eq!(outcome.forwarded.unwrap().headers.get("content-length").unwrap(), "3");
    assert_eq!((outcome.status.unwrap().as_u16(), &outcome.body[..]), (200, &b"ok"[..]));
    assert!(!outcome.reasons.is_empty());
}
