//! Headers of every kind through `identify` and `authorize`.

use bytes::Bytes;
use dataplane::{
    accept::Connection,
    engine::Refused,
    fuzzing,
    offline::{self, Exchange, Forwarded},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Version, request::Parts};

use crate::{
    input::Input,
    jwt, runtime,
    world::{self, ENGINE},
};

const METHODS: [Method; 6] =
    [Method::GET, Method::POST, Method::PUT, Method::HEAD, Method::OPTIONS, Method::DELETE];
const TARGETS: [&str; 4] = ["/fhir/Patient/1", "/fhir/secret/1", "/fhir?access_token=", "/other"];
/// Some of the names that are one header however often they come.
const JOINED: [&str; 8] = [
    "accept",
    "authorization",
    "cache-control",
    "content-type",
    "origin",
    "user-agent",
    "x-forwarded-for",
    "x-forwarded-proto",
];
/// Bytes that stand for a good token in a value.
const TOKENS: std::ops::RangeInclusive<u8> = 1..=4;

/// Three bytes pick method, target and connection; then come header lines, `name: value` and a line feed.
///
/// - With reasons, offline and live the answer is the same: verdict, words, form.
/// - POST passes only with a token that somebody signed; nothing passes of the denied addresses, and nothing
///   with the denied header.
/// - Whoever is not identified sends no `x-payload` and `x-user` upstream; hop-by-hop and internal headers
///   stay here.
/// - A header given in two lines is that header given in one.
pub fn header_values(data: &[u8]) {
    let mut input = Input::new(data);
    let (method, target, how) = (input.byte(), input.byte(), input.byte());
    let method = METHODS.get(usize::from(method) % METHODS.len()).cloned().unwrap_or_default();
    let target = target_text(TARGETS.get(usize::from(target) % TARGETS.len()).unwrap_or(&"/"), how);
    let headers = headers(input.rest());
    let version = if how & 2 == 0 { Version::HTTP_11 } else { Version::HTTP_2 };
    let connection = Connection::new(world::facts(how & 1 == 1));
    let ask = |headers: &HeaderMap| {
        let head = || parts(&method, &target, version, headers);
        let decide = async { form(ENGINE.decide(&connection, head()).await) };
        let explain = async { form(ENGINE.explain(&connection, head()).await.0) };
        runtime().block_on(async { (decide.await, explain.await) })
    };
    let (decided, explained) = ask(&headers);
    assert_eq!(decided, explained, "with reasons the answer differs");
    if let Ok(forwarded) = &decided {
        check(forwarded, &headers, &method, &target, how & 1 == 1);
    }
    check_offline(&connection, (&method, &target, version), &headers, &decided);
    let crumbs = (version == Version::HTTP_2).then_some(("cookie", "; "));
    for (name, between) in JOINED.map(|name| (name, ",")).into_iter().chain(crumbs) {
        if let Some(joined) = joined(&headers, name, between) {
            assert_eq!(ask(&joined).0, decided, "{name} in one line");
        }
    }
}

/// A good token in the query, where the target has a place for one.
fn target_text(target: &str, how: u8) -> String {
    match target.ends_with('=') {
        true if how & 4 == 4 => format!("{target}{}", jwt::WORLD.good(how >> 3)),
        _ => target.to_owned(),
    }
}

pub(crate) fn headers(bytes: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let mut whole = Vec::with_capacity(value.len());
        for byte in value.trim_ascii() {
            match byte {
                byte if TOKENS.contains(byte) => whole.extend_from_slice(jwt::WORLD.good(*byte).as_bytes()),
                byte => whole.push(*byte),
            }
        }
        let name = HeaderName::from_bytes(name.trim_ascii());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(&whole)) {
            headers.append(name, value);
        }
    }
    headers
}

pub(crate) fn parts(method: &Method, target: &str, version: Version, headers: &HeaderMap) -> Parts {
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.method = method.clone();
    parts.uri = match version {
        Version::HTTP_2 => format!("http://fhir.example{target}").parse().expect("a target"),
        _ => target.parse().expect("a target"),
    };
    parts.version = version;
    parts.headers = headers.clone();
    if version != Version::HTTP_2 && !headers.contains_key(http::header::HOST) {
        parts.headers.insert(http::header::HOST, HeaderValue::from_static("fhir.example"));
    }
    parts
}

type Form = Result<Forwarded, String>;

fn form(decided: Result<dataplane::authorize::Permitted, Box<Refused>>) -> Form {
    let mut forwarded = fuzzing::forwarded(&decided.map_err(|refused| refused.refusal.to_string())?);
    // A new one each time.
    forwarded.headers.remove("x-request-id");
    Ok(forwarded)
}

fn check(forwarded: &Forwarded, headers: &HeaderMap, method: &Method, target: &str, mtls: bool) {
    let values = || headers.values().map(HeaderValue::as_bytes).chain([target.as_bytes()]);
    let good =
        |token: &str| values().any(|value| value.windows(token.len()).any(|own| own == token.as_bytes()));
    let token = (0..4).any(|number| good(jwt::WORLD.good(number)));
    assert!(token || *method != Method::POST, "POST without a token");
    // What `Connection` lists ends here, before anything is judged (RFC 9110 section 7.6.1).
    let headers = &end_to_end(headers);
    assert!(!headers.contains_key("x-blocked"), "a denied header");
    assert!(!target.starts_with("/fhir/secret"), "a denied path");
    assert!(!from_denied_address(headers), "a denied address");
    let sent = &forwarded.headers;
    if !token {
        assert!(!sent.contains_key("x-payload") && !sent.contains_key("x-user"), "a claim of nobody");
    }
    for hop in ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "expect"] {
        assert!(!sent.contains_key(hop), "{hop} goes upstream");
    }
    assert!(!sent.contains_key("x-forwarded-client-cert"));
    assert!(mtls || !sent.keys().any(|name| name.as_str().starts_with("x-envoy-")));
    assert_eq!(sent.get_all("host").iter().count(), 1);
    assert!(!forwarded.path.contains("access_token="), "a token goes upstream");
}

fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let mut left = headers.clone();
    for value in headers.get_all(http::header::CONNECTION) {
        let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
        for name in text.split(',').map(str::trim) {
            left.remove(name);
        }
    }
    left
}

/// The last entry of `x-forwarded-for`, in the plainest reading, is in 192.0.2.0/24.
fn from_denied_address(headers: &HeaderMap) -> bool {
    let values = headers.get_all("x-forwarded-for").iter().map(HeaderValue::as_bytes);
    let values: Vec<&[u8]> = values.filter(|value| !value.is_empty()).collect();
    let whole = values.join(&b","[..]);
    let last = whole.rsplit(|byte| *byte == b',').next().unwrap_or_default();
    let last = String::from_utf8_lossy(last.trim_ascii()).parse::<std::net::IpAddr>();
    last.is_ok_and(|address| match address.to_canonical() {
        std::net::IpAddr::V4(address) => address.octets().starts_with(&[192, 0, 2]),
        std::net::IpAddr::V6(_) => false,
    })
}

/// `fhirward test` says the same, where the headers can be written in a test.
fn check_offline(
    connection: &Connection,
    (method, target, version): (&Method, &str, Version),
    headers: &HeaderMap,
    decided: &Form,
) {
    let written: Option<Vec<(String, String)>> = headers
        .iter()
        .map(|(name, value)| {
            let value = std::str::from_utf8(value.as_bytes()).ok()?;
            Some((name.as_str().to_owned(), value.to_owned()))
        })
        .collect();
    let Some(headers) = written else { return };
    // Over HTTP/2 a test says the host by its header.
    if version == Version::HTTP_2 && headers.iter().any(|(name, _)| name == "host") {
        return;
    }
    let exchange = Exchange {
        connection: connection.clone(),
        method: method.as_str().to_owned(),
        target: target.to_owned(),
        version,
        headers,
        default_host: Some("fhir.example".to_owned()),
        body: Bytes::new(),
        answer: Response::new(Bytes::new()),
    };
    let outcome = runtime().block_on(offline::run(&ENGINE, exchange));
    let mut forwarded = outcome.forwarded;
    if let Some(forwarded) = &mut forwarded {
        forwarded.headers.remove("x-request-id");
    }
    assert_eq!(forwarded.as_ref(), decided.as_ref().ok(), "offline the answer differs");
}

/// The same headers with all values of `name` in one; `None` where there is one or an empty one.
fn joined(headers: &HeaderMap, name: &'static str, between: &str) -> Option<HeaderMap> {
    let values: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    if values.len() < 2 || values.iter().any(|value| value.is_empty()) {
        return None;
    }
    let mut joined = headers.clone();
    joined.insert(name, HeaderValue::from_bytes(&values.join(between.as_bytes())).ok()?);
    Some(joined)
}
