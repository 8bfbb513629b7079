//! Methods, hosts and headers.

use super::words::Words;
use crate::oracle::dice::Dice;
use crate::oracle::model::Text;

const METHODS: &[&str] = &[
    "GET",
    "GET",
    "GET",
    "GET",
    "POST",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "HEAD",
    "OPTIONS",
    "get",
    "Post",
    "pOST",
    "FOO",
    "PROPFIND",
    "M-SEARCH",
    "PURGE",
    "G",
    "GETX",
    "SEARCH",
    "QUERY",
    "LINK",
    "TRACE",
    "CONNECT",
    "PRI",
    "MKCALENDAR",
    "REPORT",
    "P(T",
];
const HOSTS: &[&str] = &[
    "h.example",
    "h.example",
    "H.Example",
    "h.example:80",
    "h.example:8080",
    "h.example.",
    "x.h.example",
    "example",
    "10.0.0.1",
    "10.0.0.1:80",
    "[::1]",
    "[::1]:80",
    "hh",
    "xn--e1a",
    "h.example:",
    "u@h.example",
    "h.example,other",
    "h_x",
    "h example",
    "h.example:99999",
    "h.example:x",
    "%68.example",
    "h/x",
];
/// Every header that policies ask for here, and those that proxies treat in ways of their own.
const NAMES: &[&str] = &[
    "x-tag",
    "X-Tag",
    "x-role",
    "accept",
    "Accept",
    "cookie",
    "user-agent",
    "referer",
    "content-type",
    "via",
    "origin",
    "x-other",
    "cache-control",
    "if-match",
    "x_under",
    "accept-language",
    "x-forwarded-proto",
    "x-forwarded-host",
    "pragma",
    "if-none-exist",
    "prefer",
    "range",
    "forwarded",
];
const VALUES: &[&[u8]] = &[
    b"a",
    b"b",
    b"ab",
    b"",
    b"a,b",
    b"a, b",
    b"A",
    b"xb",
    b" a ",
    b"a b",
    b"q,a",
    b"\xc3\xa9",
    b"a\xff",
    b"\xffb",
    b"a\tb",
    b"medic",
    b"*",
    b"http://a/",
    b"a=1; b=2",
];
const ADDRESSES: &[&str] = &[
    "10.1.2.3",
    "10.1.2.3, 11.0.0.1",
    "11.0.0.1, 10.1.2.3",
    "11.0.0.1,10.1.2.3",
    "10.1.2.3:80",
    "garbage",
    "garbage, 10.1.2.3",
    "10.1.2.3, garbage",
    "10.1.2.3,",
    "10.1.2.3, ",
    ",",
    "",
    "2001:db8::1",
    "[2001:db8::1]",
    "[2001:db8::1]:80",
    "::ffff:10.1.2.3",
    "010.1.2.3",
    "10.1.2",
    "10.1.2.3.4",
    " 10.1.2.3 ",
    "\"10.1.2.3\"",
    "0x0a.1.2.3",
    "10.1.2.03",
    "2001:DB8::1",
    "2001:db8::1%eth0",
    "2001:db8::1.2.3.4",
    "for=10.1.2.3",
    "127.0.0.1",
];
/// Headers with a meaning for the proxy.
const SPECIAL: &[(&str, &str)] = &[
    ("origin", "http://o"),
    ("access-control-request-method", "GET"),
    ("access-control-request-method", ""),
    ("content-type", "application/grpc"),
    ("content-type", "application/grpc+proto"),
    ("content-type", "application/grpc-web"),
    ("content-type", "application/grpcx"),
    ("content-type", "application/grpc; charset=x"),
    ("expect", "100-continue"),
    ("expect", "200-maybe"),
    ("connection", "keep-alive"),
    ("connection", "x-tag"),
    ("connection", "x-role, close"),
    ("connection", "host"),
    ("connection", "content-type"),
    ("connection", "upgrade"),
    ("upgrade", "websocket"),
    ("upgrade", "h2c"),
    ("te", "trailers"),
    ("te", "gzip"),
    ("keep-alive", "timeout=5"),
    ("proxy-connection", "keep-alive"),
    ("x-http-method-override", "DELETE"),
    ("x-method-override", "DELETE"),
    ("x-original-url", "/admin"),
    ("x-rewrite-url", "/admin"),
    ("x-forwarded-client-cert", "URI=spiffe://cluster.local/ns/a/sa/b"),
    ("x-envoy-original-path", "/admin"),
    ("x-envoy-internal", "true"),
    ("x-request-id", "abc"),
    ("x-request-id", ""),
    ("host", "h.example"),
    ("host", "other.example"),
    ("accept", "application/fhir+json"),
    ("proxy-authorization", "Basic x"),
];

pub(super) fn is_connection_specific(name: &str) -> bool {
    matches!(name, "connection" | "upgrade" | "keep-alive" | "proxy-connection" | "te" | "host")
}

pub(super) fn method(dice: &mut Dice, words: &Words) -> Vec<u8> {
    if !words.methods.is_empty() && dice.percent(60) {
        let value = dice.one(&words.methods).replace('*', dice.pick(&["", "ET", "OST", "T"]));
        if !value.is_empty() {
            return value.into_bytes();
        }
    }
    match dice.below(10) {
        0..=8 => dice.pick(&METHODS[..11]),
        _ => dice.pick(METHODS),
    }
    .as_bytes()
    .to_vec()
}

pub(super) fn authority(dice: &mut Dice, words: &Words) -> Option<Vec<u8>> {
    if dice.percent(1) {
        return dice.percent(50).then(Vec::new);
    }
    if !words.hosts.is_empty() && dice.percent(60) {
        let star = dice.pick(&["", "x", "80", ".example"]);
        let mut host = dice.one(&words.hosts).replace('*', star);
        match dice.below(8) {
            0 => host = host.to_uppercase(),
            1 => host.push('.'),
            2 => host += ":80",
            _ => {}
        }
        return Some(host.into_bytes());
    }
    let host = if dice.percent(93) { dice.pick(&HOSTS[..14]) } else { dice.pick(HOSTS) };
    Some(host.as_bytes().to_vec())
}

pub(super) fn headers(dice: &mut Dice, words: &Words) -> Vec<(String, Text)> {
    let mut headers = Vec::new();
    for _ in 0..dice.below(3) {
        let (name, wanted) = match words.headers.as_slice() {
            asked if !asked.is_empty() && dice.percent(70) => dice.one(asked).clone(),
            _ => (dice.pick(NAMES).to_owned(), "a".to_owned()),
        };
        for _ in 0..dice.between(1, 2) {
            headers.push((name.clone(), Text::raw(value(dice, &wanted))));
        }
    }
    if (!words.addresses.is_empty() && dice.percent(70)) || dice.percent(5) {
        for _ in 0..dice.between(1, 4).saturating_sub(2).max(1) {
            headers.push(("x-forwarded-for".to_owned(), Text::raw(dice.pick(ADDRESSES))));
        }
    }
    while dice.percent(14) {
        let (name, value) = *dice.one(SPECIAL);
        headers.push((name.to_owned(), Text::raw(value)));
        if name == "upgrade" && dice.percent(70) {
            headers.push(("connection".to_owned(), Text::raw("upgrade")));
        }
    }
    if dice.percent(3) {
        preflight(dice, &mut headers);
    }
    headers
}

fn value(dice: &mut Dice, wanted: &str) -> Vec<u8> {
    if dice.percent(1) {
        return b"a\x01b".to_vec();
    }
    if dice.percent(45) {
        return dice.pick(VALUES).to_vec();
    }
    let mut value = wanted.replace('*', dice.pick(&["", "x", "b", ","]));
    match dice.below(10) {
        0 => value = value.to_uppercase(),
        1 => value.push_str(",z"),
        2 => value.insert(0, 'z'),
        _ => {}
    }
    value.into_bytes()
}

fn preflight(dice: &mut Dice, headers: &mut Vec<(String, Text)>) {
    headers.push(("origin".to_owned(), Text::raw("http://o")));
    if dice.percent(80) {
        headers.push(("access-control-request-method".to_owned(), Text::raw("GET")));
    }
}
