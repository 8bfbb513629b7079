//! The targets reach what they are to look at: a property of nothing holds always.

use http::{Method, Version};

use crate::{header_values, jwt, wire::run, world};

const GET: &[u8] = b"GET /fhir/Patient/1 HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn requests_reach_the_upstream_and_denied_ones_do_not() {
    let put = b"PUT /fhir/x/../1?a=b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let denied = b"GET /fhir/secret HTTP/1.1\r\nHost: a\r\n\r\n";
    let done = run(vec![GET.to_vec(), put.to_vec(), denied.to_vec(), GET.to_vec()]);
    let seen: Vec<_> = done.seen.iter().map(|seen| (seen.target.as_str(), seen.body.as_slice())).collect();
    let expected: [(&str, &[u8]); 3] =
        [("/fhir/Patient/1", b""), ("/fhir/1?a=b", b"abc"), ("/fhir/Patient/1", b"")];
    assert_eq!(seen, expected);
    assert_eq!((done.asked.len(), done.told.len()), (4, 4));
    let output = String::from_utf8(done.output).unwrap();
    let count = |text: &str| output.matches(text).count();
    assert_eq!((count("HTTP/1.1 200 OK\r\n"), count("HTTP/1.1 403 Forbidden\r\n")), (3, 1), "{output}");
}

#[test]
fn bodies_that_end_early_reach_the_upstream_as_far_as_they_came() {
    let cut = b"PUT /fhir/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc";
    let done = run(vec![cut.to_vec()]);
    assert_eq!((done.asked.len(), done.told.len()), (1, 1));
    assert_eq!(done.told.first().unwrap().flags, "DC");
    assert!(done.seen.iter().all(|seen| !seen.whole), "{:?}", done.seen);
}

#[test]
fn http2_streams_reach_the_upstream() {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus/h2_frames");
    let frames = std::fs::read(corpus.join("seed-two")).unwrap();
    let (_, frames) = frames.split_first().unwrap();
    let done = run(vec![b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frames.to_vec()]);
    assert_eq!((done.asked.len(), done.told.len(), done.seen.len()), (2, 2, 1));
    assert_eq!(crate::h2_frames::successes(&done.output), 1);
}

#[test]
fn good_tokens_are_taken() {
    for number in 0..8 {
        let accepted = jwt::accepts(&[0, number]);
        assert_eq!(accepted, number < 4, "token {number}");
    }
}

#[test]
fn a_medics_token_may_post_and_nothing_else_may() {
    for (lines, passes) in
        [(&b"authorization: Bearer \x01\n"[..], true), (b"x-token: \x02\n", true), (b"accept: a\n", false)]
    {
        let headers = header_values::headers(lines);
        let head = header_values::parts(&Method::POST, "/fhir", Version::HTTP_11, &headers);
        let connection = dataplane::accept::Connection::new(world::facts(false));
        let decided = crate::runtime().block_on(world::ENGINE.decide(&connection, head));
        assert_eq!(decided.is_ok(), passes, "{lines:?}");
    }
}

#[test]
fn a_client_that_leaves_with_its_window_full_leaves_no_stream_untold() {
    let frames = [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
        // Settings: streams begin with a window of 16 bytes, less than a refusal has.
        b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x04\x00\x00\x00\x10",
        // A request for `/denied/`, its authority as a literal.
        b"\x00\x00\x0f\x01\x05\x00\x00\x00\x01\x82\x86\x41\x01a\x04\x08/denied\x2f",
    ]
    .concat();
    let done = run(vec![frames]);
    assert_eq!((done.asked.len(), done.told.len(), done.seen.len()), (1, 1, 0));
}

/// The properties can fail: each is shown what it is there to find.
mod oracles {
    use serde_json::json;

    use crate::{jwks, jwt, request_head, upstream, upstream::Seen};

    fn seen(target: &str) -> Seen {
        Seen { method: "GET".to_owned(), target: target.to_owned(), whole: true, ..Seen::default() }
    }

    #[test]
    #[should_panic(expected = "nobody permitted")]
    fn a_request_that_nobody_judged() {
        request_head::check_forwarded(&[], &[], &[seen("/fhir")]);
    }

    #[test]
    #[should_panic(expected = "denied, and forwarded")]
    fn a_denied_path_in_disguise() {
        request_head::check_guarded(&seen("/fhir/x/%2e./%73ecret?a"));
    }

    #[test]
    #[should_panic(expected = "1 successes, 0 told")]
    fn an_answer_without_a_story() {
        request_head::check_successes(1, &[], &[seen("/fhir")]);
    }

    #[test]
    #[should_panic(expected = "content-length")]
    fn a_message_of_two_lengths() {
        let bytes = b"PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n";
        upstream::message(bytes, false);
    }

    #[test]
    #[should_panic(expected = "usable")]
    fn a_shared_secret_among_the_keys() {
        jwks::check(&json!({"kty": "oct", "k": "AQAB", "alg": "HS256"}));
    }

    #[test]
    #[should_panic(expected = "1024 bits")]
    fn a_weak_key_among_the_keys() {
        let modulus = "_".repeat(170) + "w";
        jwks::check(&json!({"kty": "RSA", "n": modulus, "e": "AQAB"}));
    }

    #[test]
    fn a_token_that_was_changed() {
        let good = jwt::WORLD.good(3);
        assert!(jwt::same(good, good));
        let (signed, signature) = good.rsplit_once('.').unwrap();
        for other in [format!("{signed}x.{signature}"), format!("{signed}.{signature}A"), signed.to_owned()] {
            assert!(!jwt::same(good, &other), "{other}");
        }
    }
}
