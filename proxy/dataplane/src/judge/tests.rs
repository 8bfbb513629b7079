#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use http::{HeaderName, HeaderValue, Response, header};
use mesh::routing::HeaderEdits;

use super::release;

fn pair(name: &'static str, value: &'static str) -> (HeaderName, HeaderValue) {
    (HeaderName::from_static(name), HeaderValue::from_static(value))
}

fn head(headers: &[(&'static str, &'static str)]) -> http::response::Parts {
    let (mut head, ()) = Response::new(()).into_parts();
    for (name, value) in headers {
        let (name, value) = pair(name, value);
        head.headers.append(name, value);
    }
    head
}

#[test]
fn hop_by_hop_headers_of_the_answer_end_here() {
    let released = release(
        head(&[
            ("connection", "close, x-private"),
            ("x-private", "1"),
            ("keep-alive", "x"),
            ("transfer-encoding", "chunked"),
            ("content-length", "3"),
            ("etag", "W/\"1\""),
        ]),
        None,
        &[],
    )
    .into_parts();
    let mut left: Vec<&str> = released.headers.keys().map(HeaderName::as_str).collect();
    left.sort_unstable();
    assert_eq!(left, ["content-length", "etag"]);
}

#[test]
fn the_routes_edits_and_cors_win() {
    let edits = HeaderEdits {
        remove: vec![HeaderName::from_static("server")],
        set: vec![pair("x-a", "2")],
        add: vec![pair("x-b", "2")],
    };
    let cors = [pair("access-control-allow-origin", "https://app")];
    let released = release(
        head(&[("server", "x"), ("x-a", "1"), ("x-b", "1"), ("access-control-allow-origin", "*")]),
        Some(&edits),
        &cors,
    )
    .into_parts();
    assert!(!released.headers.contains_key(header::SERVER));
    assert_eq!(released.headers.get("x-a").unwrap(), "2");
    assert_eq!(released.headers.get_all("x-b").iter().count(), 2);
    let origins: Vec<_> = released.headers.get_all("access-control-allow-origin").iter().collect();
    assert_eq!(origins, ["https://app"]);
}
