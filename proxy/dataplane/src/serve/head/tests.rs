#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request as HttpRequest, Uri, Version};
use mesh::routing::{GatewayKey, HeaderEdits};
use policy::{
    SpiffeId,
    target::{Normalization, TargetError, TargetRules},
};

use super::{Edge, HeadError, Onward, Request};
use crate::{
    Limits, Refusal,
    accept::{Connection, ConnectionFacts, Entry},
    dice::Dice,
    limits::Exceeded,
};

const STRICT: TargetRules = TargetRules { normalization: Normalization::Base, strict: true };
const ENVOY: TargetRules = TargetRules { normalization: Normalization::Base, strict: false };
const GATEWAY: Edge = Edge::Gateway { trusted_proxies: 0 };

fn connection(identity: bool, tls: bool) -> Connection {
    let key = GatewayKey { labels: [("istio".to_owned(), "ingressgateway".to_owned())].into(), port: 80 };
    Connection::new(ConnectionFacts {
        peer: "198.51.100.7:40000".parse().unwrap(),
        local: "10.0.0.1:80".parse().unwrap(),
        identity: identity.then(|| SpiffeId {
            trust_domain: "cluster.local".to_owned(),
            namespace: "a".to_owned(),
            service_account: "b".to_owned(),
        }),
        mutual_tls: identity,
        tls,
        sni: None,
        entry: Entry::Gateway(key),
    })
}

struct Case {
    method: &'static str,
    target: &'static str,
    version: Version,
    headers: Vec<(&'static str, &'static str)>,
    edge: Edge,
    rules: TargetRules,
    connection: Connection,
}

fn get(target: &'static str, headers: &[(&'static str, &'static str)]) -> Case {
    Case {
        method: "GET",
        target,
        version: Version::HTTP_11,
        headers: headers.to_vec(),
        edge: Edge::Workload,
        rules: STRICT,
        connection: connection(false, false),
    }
}

fn read(case: Case) -> Result<Box<Request>, Refusal> {
    let mut headers = HeaderMap::new();
    for (name, value) in case.headers {
        headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    let (mut parts, ()) = HttpRequest::new(()).into_parts();
    parts.method = Method::from_bytes(case.method.as_bytes()).unwrap();
    parts.uri = case.target.parse::<Uri>().unwrap();
    parts.version = case.version;
    parts.headers = headers;
    let limits = Limits { header_count: 20, request_body_bytes: 100, ..Limits::default() };
    Request::read(parts, &case.connection, case.edge, case.rules, (&limits, &Dice::seeded(7)))
}

fn head_error(case: Case) -> Option<HeadError> {
    match read(case) {
        Err(Refusal::Head(error)) => Some(error),
        Err(other) => panic!("{other:?}"),
        Ok(_) => None,
    }
}

fn header<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    let mut values = request.headers().get_all(name).iter();
    let first = values.next().map(|value| value.to_str().unwrap());
    assert!(values.next().is_none(), "{name} is there once");
    first
}

#[test]
fn one_valid_host() {
    let cases = [
        ("/", &[("host", "a")][..], None),
        ("/", &[("host", "a.b:8080")], None),
        ("/", &[("host", "[::1]:80")], None),
        ("/", &[("host", "A_b")], None),
        ("/", &[], Some(HeadError::MissingHost)),
        ("/", &[("host", "")], Some(HeadError::MissingHost)),
        ("/", &[("host", "a"), ("host", "b")], Some(HeadError::SeveralHosts)),
        ("/", &[("host", "a"), ("host", "a")], Some(HeadError::SeveralHosts)),
        ("/", &[("host", "a,b")], Some(HeadError::BadHost)),
        ("/", &[("host", "u@a")], Some(HeadError::BadHost)),
        ("/", &[("host", "a:")], Some(HeadError::BadHost)),
        ("/", &[("host", "a:b")], Some(HeadError::BadHost)),
        ("/", &[("host", "a:99999")], Some(HeadError::BadHost)),
        ("/", &[("host", "a/b")], Some(HeadError::BadHost)),
        ("/", &[("host", "[::1")], Some(HeadError::BadHost)),
        ("/", &[("host", "[::1]x")], Some(HeadError::BadHost)),
        ("http://a/x", &[("host", "a")], None),
        ("http://a:80/x", &[("host", "A")], None),
        ("http://a/x", &[], Some(HeadError::MissingHost)),
        ("http://a/x", &[("host", "b")], Some(HeadError::HostMismatch)),
        ("https://a/x", &[("host", "a")], Some(HeadError::HostMismatch)),
        ("http://a:81/x", &[("host", "a")], Some(HeadError::HostMismatch)),
    ];
    for (target, headers, wanted) in cases {
        assert_eq!(head_error(get(target, headers)), wanted, "{target} {headers:?}");
    }
    assert_eq!(head_error(get("http://u@a/x", &[("host", "a")])), Some(HeadError::BadHost));
}

#[test]
fn http2_says_its_host_once() {
    let h2 = |target, headers: &[_]| Case { version: Version::HTTP_2, ..get(target, headers) };
    assert_eq!(head_error(h2("https://a/x", &[])), None);
    assert_eq!(head_error(h2("http://a/x", &[("host", "a")])), None);
    assert_eq!(head_error(h2("/x", &[("host", "a")])), None);
    assert_eq!(head_error(h2("/x", &[])), Some(HeadError::MissingHost));
    assert_eq!(head_error(h2("http://a/x", &[("host", "b")])), Some(HeadError::HostMismatch));
    assert_eq!(head_error(h2("http://u@a/x", &[])), Some(HeadError::BadHost));
    let request = read(h2("http://a:1/x", &[])).unwrap();
    assert_eq!(request.authority(), "a:1");
    assert_eq!(header(&request, "host"), Some("a:1"), "judged and forwarded host are one");
}

#[test]
fn cookie_crumbs_are_joined() {
    let crumbs = [("cookie", "a=1"), ("x", "y"), ("cookie", "b=2; c=3")];
    let request = read(Case { version: Version::HTTP_2, ..get("http://a/x", &crumbs) }).unwrap();
    assert_eq!(header(&request, "cookie"), Some("a=1; b=2; c=3"));
}

#[test]
fn bug_a_second_value_did_not_spoil_a_header_that_envoy_keeps_as_one() {
    let twice =
        [("host", "a"), ("accept", "a"), ("x-tag", "a"), ("accept", ""), ("accept", "b"), ("x-tag", "b")];
    let request = read(get("/x", &twice)).unwrap();
    let values = |name: &str| request.headers().get_all(name).iter().cloned().collect::<Vec<_>>();
    assert_eq!(values("accept"), ["a,b"]);
    assert_eq!(values("x-tag"), ["a", "b"], "others are matched one by one");
    let empty = [("host", "a"), ("x-forwarded-for", "10.1.2.3"), ("x-forwarded-for", "")];
    assert_eq!(read(get("/x", &empty)).unwrap().remote_ip(), "10.1.2.3".parse::<IpAddr>().unwrap());
    let crumbs = [("host", "a"), ("cookie", "a=1"), ("cookie", "b=2")];
    let request = read(get("/x", &crumbs)).unwrap();
    assert_eq!(request.headers().get_all("cookie").iter().count(), 2, "HTTP/1 has no crumbs");
}

#[test]
fn bug_raw_utf8_in_an_http1_target_passed() {
    let refused = read(Case { rules: ENVOY, ..get("/é", &[("host", "a")]) }).unwrap_err();
    assert!(matches!(refused, Refusal::Target(TargetError::NotNormalisable)), "{refused:?}");
    let http2 = Case { version: Version::HTTP_2, rules: ENVOY, ..get("http://a/é", &[]) };
    assert_eq!(read(http2).unwrap().target().as_str(), "/%C3%A9");
}

#[test]
fn bug_two_claims_for_one_header_were_judged_as_one_value() {
    let mut request = read(get("/x", &[("host", "a"), ("x-role", "spoofed")])).unwrap();
    let value = |text| (HeaderName::from_static("x-role"), HeaderValue::from_static(text));
    let set_headers = vec![value("medic"), value("nurse")];
    request.apply(identity::Edits { set_headers, ..identity::Edits::default() });
    assert_eq!(request.headers().get_all("x-role").iter().collect::<Vec<_>>(), ["medic", "nurse"]);
}

#[test]
fn methods() {
    let with = |method, version| Case { method, version, ..get("/", &[("host", "a")]) };
    let old = Version::HTTP_11;
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "PROPFIND"] {
        assert_eq!(head_error(with(method, old)), None, "{method}");
    }
    for method in ["get", "FOO", "Post", "M-SEARCH"] {
        assert_eq!(head_error(with(method, old)), Some(HeadError::Method), "{method}");
        assert_eq!(head_error(with(method, Version::HTTP_2)), None, "{method}");
    }
    assert_eq!(head_error(with("TRACE", old)), Some(HeadError::MethodNotAllowed));
    assert_eq!(head_error(with("TRACE", Version::HTTP_2)), Some(HeadError::MethodNotAllowed));
    let connect = Case { method: "CONNECT", ..get("a:443", &[("host", "a:443")]) };
    assert_eq!(head_error(connect), Some(HeadError::MethodNotAllowed));
    let version = |version| head_error(with("GET", version));
    assert_eq!(version(Version::HTTP_10), None);
    assert_eq!(version(Version::HTTP_3), Some(HeadError::Version));
    assert_eq!(version(Version::HTTP_09), Some(HeadError::Version));
}

#[test]
fn the_asterisk_is_for_options() {
    let star = |method| Case { method, ..get("*", &[("host", "a")]) };
    assert_eq!(head_error(star("GET")), Some(HeadError::AsteriskForm));
    assert_eq!(read(star("OPTIONS")).unwrap().target().as_str(), "*");
}

#[test]
fn one_length() {
    let with = |headers: &[(&'static str, &'static str)]| {
        let mut case = get("/", headers);
        case.headers.push(("host", "a"));
        head_error(case)
    };
    assert_eq!(with(&[("content-length", "5")]), None);
    assert_eq!(with(&[("transfer-encoding", "chunked")]), None);
    for bad in ["", "+5", "-1", "5, 5", "0x5", "99999999999999999999999"] {
        assert_eq!(with(&[("content-length", bad)]), Some(HeadError::ContentLength), "{bad}");
    }
    let twice = [("content-length", "5"), ("content-length", "5")];
    assert_eq!(with(&twice), Some(HeadError::ContentLength));
    let both = [("content-length", "5"), ("transfer-encoding", "chunked")];
    assert_eq!(with(&both), Some(HeadError::LengthAndEncoding));
    for bad in ["gzip, chunked", "identity", "xchunked"] {
        assert_eq!(with(&[("transfer-encoding", bad)]), Some(HeadError::TransferEncoding), "{bad}");
    }
}

#[test]
fn bug_a_length_that_could_be_read_as_octal_went_upstream() {
    for (sent, forwarded) in [("0010", "10"), ("00", "0"), ("0", "0"), ("10", "10")] {
        let request = read(get("/", &[("host", "a"), ("content-length", sent)])).unwrap();
        assert_eq!(header(&request, "content-length"), Some(forwarded), "{sent}");
    }
}

#[test]
fn limits_of_the_head() {
    let large = get("/", &[("host", "a"), ("content-length", "101")]);
    assert!(matches!(read(large), Err(Refusal::Limit(Exceeded::RequestBodyBytes))));
    let mut many = get("/", &[("host", "a")]);
    many.headers.extend(std::iter::repeat_n(("x-y", "z"), 20));
    assert!(matches!(read(many), Err(Refusal::Limit(Exceeded::HeaderCount))));
}

#[test]
fn connection_specific_headers_are_refused_in_http2() {
    for name in ["connection", "transfer-encoding", "upgrade", "keep-alive", "proxy-connection"] {
        let case = Case { version: Version::HTTP_2, ..get("http://a/", &[(name, "x")]) };
        assert_eq!(head_error(case), Some(HeadError::ConnectionSpecific), "{name}");
    }
    let te = |value| Case { version: Version::HTTP_2, ..get("http://a/", &[("te", value)]) };
    assert_eq!(head_error(te("gzip")), Some(HeadError::ConnectionSpecific));
    assert_eq!(header(&read(te("trailers")).unwrap(), "te"), Some("trailers"));
}

#[test]
fn expectations() {
    let with = |value| get("/", &[("host", "a"), ("expect", value)]);
    let request = read(with("100-Continue")).unwrap();
    assert_eq!(header(&request, "expect"), None, "we answer it, the upstream is not asked");
    assert_eq!(head_error(with("the-impossible")), Some(HeadError::Expectation));
}

#[test]
fn hop_by_hop_headers_end_here() {
    let request = read(get(
        "/",
        &[
            ("host", "a"),
            ("connection", "keep-alive, X-Private , te"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "gzip, Trailers"),
            ("upgrade", "h2c"),
            ("x-kept", "1"),
        ],
    ))
    .unwrap();
    for name in ["connection", "x-private", "keep-alive", "proxy-connection", "upgrade"] {
        assert_eq!(header(&request, name), None, "{name}");
    }
    assert_eq!(header(&request, "te"), Some("trailers"));
    assert_eq!(header(&request, "x-kept"), Some("1"));
    assert!(request.into_parts().upgrade.is_none());
}

#[test]
fn connection_cannot_remove_what_we_set() {
    let case = Case {
        edge: GATEWAY,
        ..get(
            "/",
            &[
                ("host", "a"),
                ("connection", "close, x-forwarded-for, x-forwarded-proto"),
                ("x-forwarded-for", "1.2.3.4"),
            ],
        )
    };
    let request = read(case).unwrap();
    assert_eq!(header(&request, "x-forwarded-for"), Some("198.51.100.7"));
    assert_eq!(header(&request, "x-forwarded-proto"), Some("http"));
    for name in ["host", "Authorization", "content-length", "cookie"] {
        let case = get("/", &[("host", "a"), ("connection", name)]);
        assert_eq!(head_error(case), Some(HeadError::Nominated), "{name}");
    }
}

#[test]
fn websocket_upgrades_are_carried() {
    let upgrade = |method, headers: &[_]| {
        let mut case = Case { method, ..get("/ws", headers) };
        case.headers.push(("host", "a"));
        let request = read(case).unwrap();
        assert!(header(&request, "upgrade").is_none());
        request.into_parts().upgrade
    };
    let both = [("connection", "Upgrade"), ("upgrade", "WebSocket")];
    assert_eq!(upgrade("GET", &both), Some("websocket".to_owned()));
    assert_eq!(upgrade("POST", &both), None);
    assert_eq!(upgrade("GET", &[("upgrade", "websocket")]), None);
    assert_eq!(upgrade("GET", &[("connection", "upgrade"), ("upgrade", "h2c")]), None);
}

#[test]
fn the_target_is_canonical() {
    let request = read(get("/fhir/./Patient/%61?x=%2F#f", &[("host", "a")])).unwrap();
    assert_eq!(request.target().as_str(), "/fhir/Patient/a?x=%2F");
    let matrix = || get("/fhir/Patient;x=y", &[("host", "a")]);
    assert!(matches!(read(matrix()), Err(Refusal::Target(TargetError::MatrixParameter))));
    let lax = read(Case { rules: ENVOY, ..matrix() }).unwrap();
    assert_eq!(lax.target().as_str(), "/fhir/Patient;x=y");
    let override_header = get("/", &[("host", "a"), ("x-http-method-override", "DELETE")]);
    assert!(matches!(read(override_header), Err(Refusal::Target(TargetError::MethodOverride))));
}

#[test]
fn the_gateway_uses_the_connections_address() {
    let at = |trusted_proxies, tls, headers: &[_]| {
        let mut case = get("/", headers);
        case.headers.push(("host", "a"));
        case.edge = Edge::Gateway { trusted_proxies };
        case.connection = connection(false, tls);
        read(case).unwrap()
    };
    let peer: IpAddr = "198.51.100.7".parse().unwrap();
    let plain = at(0, false, &[("x-forwarded-for", "1.2.3.4"), ("x-forwarded-proto", "https")]);
    assert_eq!(plain.remote_ip(), peer);
    assert_eq!(header(&plain, "x-forwarded-for"), Some("1.2.3.4,198.51.100.7"));
    assert_eq!(header(&plain, "x-forwarded-proto"), Some("http"));
    assert_eq!(header(&at(0, true, &[]), "x-forwarded-proto"), Some("https"));
    let trusted = [("x-forwarded-for", "9.9.9.9"), ("x-forwarded-for", "1.2.3.4, 5.6.7.8")];
    let client = |proxies| at(proxies, false, &trusted).remote_ip().to_string();
    assert_eq!(client(1), "5.6.7.8");
    assert_eq!(client(2), "1.2.3.4");
    assert_eq!(client(3), "9.9.9.9");
    assert_eq!(client(4), "198.51.100.7", "fewer entries than proxies");
}

#[test]
fn a_workloads_entry_believes_the_last_entry() {
    let client = |value| {
        let request = read(get("/", &[("host", "a"), ("x-forwarded-for", value)])).unwrap();
        assert_eq!(header(&request, "x-forwarded-for"), Some(value), "nothing is appended");
        request.remote_ip().to_string()
    };
    assert_eq!(client("1.2.3.4, 5.6.7.8"), "5.6.7.8");
    assert_eq!(client("2001:db8::1"), "2001:db8::1");
    for bad in ["1.2.3.4, garbage", "1.2.3.4:80", "", "1.2.3.4,", "[::1]"] {
        assert_eq!(client(bad), "198.51.100.7", "{bad}");
    }
}

#[test]
fn headers_between_proxies_are_not_taken_from_outside() {
    let headers = [
        ("host", "a"),
        ("x-envoy-internal", "true"),
        ("x-envoy-peer-metadata", "x"),
        ("x-forwarded-client-cert", "URI=spiffe://cluster.local/ns/admin/sa/root"),
    ];
    for edge in [GATEWAY, Edge::Workload] {
        let request = read(Case { edge, ..get("/", &headers) }).unwrap();
        for (name, _) in headers.iter().skip(1) {
            assert_eq!(header(&request, name), None, "{name} {edge:?}");
        }
    }
    let peer = Case { connection: connection(true, true), ..get("/", &headers) };
    let request = read(peer).unwrap();
    assert_eq!(header(&request, "x-envoy-internal"), Some("true"), "a verified peer is a proxy");
    assert_eq!(header(&request, "x-forwarded-client-cert"), None);
}

#[test]
fn bug_a_client_certificate_spelt_with_underscores_reached_the_workload() {
    for (edge, verified) in [(GATEWAY, false), (Edge::Workload, false), (Edge::Workload, true)] {
        let it = get("/", &[("host", "a"), ("x_forwarded_client_cert", ""), ("x-forwarded_client-cert", "")]);
        let request = read(Case { edge, connection: connection(verified, verified), ..it }).unwrap();
        assert!(!request.headers().keys().any(|name| name.as_str().contains("client")), "{edge:?}");
    }
}

#[test]
fn request_ids() {
    let id = |edge, value: Option<&'static str>| {
        let mut case = Case { edge, ..get("/", &[("host", "a")]) };
        case.headers.extend(value.map(|value| ("x-request-id", value)));
        header(&read(case).unwrap(), "x-request-id").unwrap().to_owned()
    };
    assert_eq!(id(Edge::Workload, Some("abc")), "abc");
    assert_ne!(id(GATEWAY, Some("abc")), "abc");
    assert_ne!(id(Edge::Workload, Some("a b")), "a b");
    assert_eq!(id(Edge::Workload, None).len(), 36);
}

fn onward<'a>(path: Option<&'a str>, headers: &'a HeaderEdits) -> Onward<'a> {
    Onward { path, authority: None, headers }
}

#[test]
fn a_rewritten_target_is_canonical_again() {
    let edits = HeaderEdits::default();
    let peer = "198.51.100.7".parse().unwrap();
    let ask = || read(Case { edge: GATEWAY, ..get("/fhir/Patient?x=1", &[("host", "a")]) }).unwrap();
    let rewritten = ask().reroute(onward(Some("/a/../Patient"), &edits), STRICT, peer).unwrap();
    assert_eq!(rewritten.target().as_str(), "/Patient?x=1");
    let bad = ask().reroute(onward(Some("/Patient;x"), &edits), STRICT, peer);
    assert!(matches!(bad, Err(Refusal::Target(TargetError::MatrixParameter))));
    let none = ask().reroute(onward(Some("Patient"), &edits), STRICT, peer);
    assert!(matches!(none, Err(Refusal::Target(TargetError::NotOriginForm))));
}

#[test]
fn a_stricter_destination_sees_what_the_client_sent() {
    let edits = HeaderEdits::default();
    let peer = "198.51.100.7".parse().unwrap();
    // The gateway's form of it, `/admin`, hides the parameter.
    let lax = read(Case { edge: GATEWAY, rules: ENVOY, ..get("/x/..;a/admin", &[("host", "a")]) }).unwrap();
    assert_eq!(lax.target().as_str(), "/admin");
    let refused = lax.reroute(onward(None, &edits), STRICT, peer);
    assert!(matches!(refused, Err(Refusal::Target(TargetError::MatrixParameter))));
}

#[test]
fn bug_a_target_leaving_the_mesh_was_resolved_after_it_was_judged() {
    let edits = HeaderEdits::default();
    let peer = "198.51.100.7".parse().unwrap();
    let ask = || {
        let target = "/public/.%2e;x/admin";
        read(Case { edge: GATEWAY, rules: ENVOY, ..get(target, &[("host", "a")]) }).unwrap()
    };
    let judged = ask().target().as_str().to_owned();
    assert_eq!(judged, "/public/..;x/admin");
    assert_eq!(ask().leave(onward(None, &edits), peer).unwrap().target().as_str(), judged);
    // A workload's own entry resolves it, as a sidecar would, and judges what comes out.
    assert_eq!(ask().reroute(onward(None, &edits), ENVOY, peer).unwrap().target().as_str(), "/admin");
    let rewritten = ask().leave(onward(Some("/v1/x"), &edits), peer).unwrap();
    assert_eq!(rewritten.target().as_str(), "/v1/x");
}

#[test]
fn header_edits_change_the_host_everywhere_or_nowhere() {
    let peer = "198.51.100.7".parse().unwrap();
    let ask = || read(get("/", &[("host", "a"), ("x-old", "1"), ("content-length", "3")])).unwrap();
    let set = |name: &'static str, value: &'static str| {
        (HeaderName::from_static(name), HeaderValue::from_static(value))
    };
    let edits = HeaderEdits {
        remove: vec![HeaderName::from_static("x-old"), HeaderName::from_static("content-length")],
        set: vec![set("host", "new:81"), set("transfer-encoding", "chunked"), set("x-new", "2")],
        add: vec![set("x-new", "3")],
    };
    let request = ask().reroute(onward(None, &edits), STRICT, peer).unwrap();
    assert_eq!(request.authority(), "new:81");
    assert_eq!(header(&request, "host"), Some("new:81"));
    assert_eq!(header(&request, "x-old"), None);
    assert_eq!(header(&request, "content-length"), Some("3"), "framing is nobody's to edit");
    assert_eq!(header(&request, "transfer-encoding"), None);
    assert_eq!(request.headers().get_all("x-new").iter().count(), 2);
    let bad = HeaderEdits { set: vec![set("host", "u@x")], ..HeaderEdits::default() };
    let request = ask().reroute(onward(None, &bad), STRICT, peer).unwrap();
    assert_eq!(header(&request, "host"), Some("a"));
}

/// The comparison with Envoy found HTTP/1.0 apart: only HTTP/1.1 was held to ASCII.
#[test]
fn bytes_beyond_ascii_in_a_target_are_refused_in_every_http_1() {
    for (version, refused) in [(Version::HTTP_10, true), (Version::HTTP_11, true), (Version::HTTP_2, false)] {
        let answer = read(Case { version, ..get("/Pati\u{e9}nt", &[("host", "a")]) });
        let not_normalisable = matches!(answer, Err(Refusal::Target(TargetError::NotNormalisable)));
        assert_eq!(not_normalisable, refused, "{version:?}: {answer:?}");
    }
}

/// FHIR has no QUERY yet, HTTP does, and so does Envoy's codec: policies judge it.
#[test]
fn query_is_a_method_over_http_1() {
    assert_eq!(head_error(Case { method: "QUERY", ..get("/Patient", &[("host", "a")]) }), None);
    let unknown = Case { method: "QUERRY", ..get("/Patient", &[("host", "a")]) };
    assert_eq!(head_error(unknown), Some(HeadError::Method));
}
