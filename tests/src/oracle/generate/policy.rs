//! Rules for tokens, and AuthorizationPolicies.

use serde_json::{Map, Value, json};

use crate::oracle::dice::Dice;
use crate::oracle::model::{ISSUERS, Policy};

const PATHS: &[&str] = &[
    "/a",
    "/a*",
    "*/a",
    "*",
    "/a/*",
    "/A",
    "/a/",
    "/",
    "*.html",
    "/a?b",
    "/%61",
    "/a%20b",
    "/a|b",
    "/a%7Cb",
    "*%2fadmin",
    "/*",
    "/a;b",
    "/x%252f*",
    "/admin",
    "/admin*",
    "/fhir/Patient",
    "/fhir/Patient/*",
    "/fhir/*",
    "*/Patient",
    "//a",
    "/x/../admin",
    "/t/{*}",
    "/t/{**}",
    "/t/{*}/x",
    "/t/{*}/{**}",
    "/{*}",
    "/{**}",
    "/t/{*}/x/{**}/y",
    "/t/{**}/y",
    "/{*}/{*}",
    "/t/{*}/",
    "/t/a.b/{*}",
    "/t/%20/{*}",
    "/fhir/{*}/_history/{*}",
    "/a/./b",
    "*/",
];
const METHODS: &[&str] = &["GET", "POST", "PUT", "DELETE", "get", "*", "P*", "*T", "HEAD", "FOO", "PATCH"];
const HOSTS: &[&str] = &[
    "h.example",
    "H.Example",
    "h*",
    "*.example",
    "*",
    "h.example:80",
    "*:80",
    "10.0.0.1",
    "[::1]:80",
    "x*",
    "other.example",
];
const PORTS: &[&str] = &["8080", "8080", "80", "9090"];
const ADDRESSES: &[&str] = &[
    "10.0.0.0/8",
    "127.0.0.1",
    "127.0.0.0/8",
    "2001:db8::/32",
    "0.0.0.0/0",
    "::/0",
    "::ffff:10.0.0.0/104",
    "11.0.0.1",
    "10.1.2.3",
];
const PRINCIPALS: &[&str] = &["cluster.local/ns/a/sa/b", "*", "*/sa/b", "cluster.local/ns/a/*"];
const REQUEST_PRINCIPALS: &[&str] = &[
    "*",
    "https://a.example/realms/r/alice",
    "https://a.example/realms/r/*",
    "*/alice",
    "https://a*",
    "*ice",
    "https://a.example/realms/r/al*",
    "*r/alice",
    "alice",
    "/alice",
    "https://a.example/realms/r",
    "https://a.example/realms/r*",
    "*/*",
    "https://b.example/realms/r/*",
];
const HEADERS: &[&str] = &[
    "x-tag",
    "X-TAG",
    "x-role",
    "accept",
    "cookie",
    "user-agent",
    "x-forwarded-for",
    "referer",
    "content-type",
    "via",
    "origin",
    "host",
    "authorization",
    "x-payload",
    "x-tok",
];
const VALUES: &[&str] = &["a", "a*", "*b", "*", "a,b", "A", "a b", "b,a", "medic", "é"];
const CLAIMS: &[(&str, &str)] = &[
    ("role", "medic"),
    ("role", "med*"),
    ("role", "*dic"),
    ("role", "*"),
    ("realm_access][roles", "medic"),
    ("realm_access][roles", "*"),
    ("scope", "read"),
    ("scope", "read write"),
    ("groups", "g1"),
    ("permission", "p1"),
    ("n", "5"),
    ("n", "*"),
    ("b", "true"),
    ("a.b", "x"),
    ("a][b", "x"),
    ("l][0", "x"),
    ("o", "*"),
    ("https://x/y", "z"),
    ("iss", "https://a.example/realms/r"),
    ("sub", "alice"),
    ("aud", "fhir"),
    ("empty", "*"),
    ("role", "Medic"),
];

fn strings(dice: &mut Dice, from: &[&str]) -> Value {
    let count = dice.between(1, 4).saturating_sub(2).max(1);
    (0..count).map(|_| Value::from(dice.pick(from))).collect()
}

/// The `jwtRules` of a RequestAuthentication.
pub(super) fn rules(dice: &mut Dice) -> Vec<Value> {
    let count = if dice.percent(65) { 1 } else { 2 };
    let one = |index| {
        let issuer = if dice.percent(85) { ISSUERS[index] } else { ISSUERS[0] };
        rule(dice, issuer)
    };
    (0..count).map(one).collect()
}

fn rule(dice: &mut Dice, issuer: &str) -> Value {
    let mut rule = json!({"issuer": issuer});
    if dice.percent(25) {
        rule["audiences"] = strings(dice, &["fhir", "https://api.example/", "fhir"]);
    }
    if dice.percent(40) {
        for _ in 0..dice.between(1, 2) {
            place(dice, &mut rule);
        }
    }
    if dice.percent(25) {
        rule["forwardOriginalToken"] = true.into();
    }
    if dice.percent(20) {
        rule["outputPayloadToHeader"] = "x-payload".into();
    }
    if dice.percent(30) {
        let outputs: &[(&str, &str)] = &[
            ("x-sub", "sub"),
            ("x-role", "role"),
            ("x-n", "n"),
            ("x-c", "a.b"),
            ("x-scope", "scope"),
            ("x-aud", "aud"),
            ("x-role", "groups"),
            ("x-tok", "sub"),
            ("x-tag", "role"),
            ("x-b", "b"),
            ("x-e", "empty"),
        ];
        let output = |dice: &mut Dice| {
            let (header, claim) = *dice.one(outputs);
            json!({"header": header, "claim": claim})
        };
        rule["outputClaimToHeaders"] = (0..dice.between(1, 3)).map(|_| output(dice)).collect();
    }
    if dice.percent(15) {
        rule["spaceDelimitedClaims"] = json!(["groups"]);
    }
    rule
}

fn place(dice: &mut Dice, rule: &mut Value) {
    let (field, value) = match dice.below(8) {
        0 => ("fromHeaders", json!({"name": "x-tok"})),
        1 => ("fromHeaders", json!({"name": "x-auth", "prefix": "Token "})),
        2 => ("fromHeaders", json!({"name": "authorization", "prefix": "Bearer"})),
        3 | 4 => ("fromHeaders", json!({"name": "authorization", "prefix": "Bearer "})),
        5 => ("fromParams", json!("jwt")),
        6 => ("fromParams", json!("access_token")),
        _ => ("fromCookies", json!("sid")),
    };
    match rule[field].as_array_mut() {
        Some(list) if !list.contains(&value) => list.push(value),
        Some(_) => {}
        None => rule[field] = json!([value]),
    }
}

/// An AuthorizationPolicy.
pub(super) fn policy(dice: &mut Dice, authentications: &[Vec<Value>]) -> Policy {
    let action = match dice.below(20) {
        0..=9 => "ALLOW",
        10..=17 => "DENY",
        _ => "AUDIT",
    };
    let mut spec = json!({"action": action});
    match dice.below(10) {
        0 => spec["selector"] = json!({"matchLabels": {"app": "other"}}),
        1..=4 => spec["selector"] = json!({"matchLabels": {"app": "fhir"}}),
        _ => {}
    }
    // An ALLOW without rules closes everything: worth seeing, but not often.
    let count = if action == "ALLOW" && dice.percent(4) { 0 } else { dice.between(1, 3) };
    if count > 0 {
        spec["rules"] = (0..count).map(|_| one_rule(dice, !authentications.is_empty())).collect();
    }
    let (root, dry_run) = (dice.percent(10), action != "AUDIT" && dice.percent(5));
    Policy { root, dry_run, spec }
}

fn one_rule(dice: &mut Dice, tokens: bool) -> Value {
    let mut rule = Map::new();
    if dice.percent(70) {
        let operations: Vec<Value> =
            (0..few(dice)).map(|_| json!({"operation": fields(dice, operation)})).collect();
        rule.insert("to".to_owned(), operations.into());
    }
    if dice.percent(if tokens { 40 } else { 15 }) {
        let sources: Vec<Value> = (0..few(dice)).map(|_| json!({"source": fields(dice, source)})).collect();
        rule.insert("from".to_owned(), sources.into());
    }
    if dice.percent(45) {
        let conditions: Vec<Value> = (0..few(dice)).map(|_| condition(dice)).collect();
        rule.insert("when".to_owned(), conditions.into());
    }
    rule.into()
}

fn few(dice: &mut Dice) -> usize {
    if dice.percent(75) { 1 } else { 2 }
}

fn fields(dice: &mut Dice, field: impl Fn(&mut Dice) -> (&'static str, &'static str, Value)) -> Value {
    let mut fields = Map::new();
    for _ in 0..few(dice) {
        let (name, negated, value) = field(dice);
        let name = if dice.percent(25) { negated } else { name };
        fields.insert(name.to_owned(), value);
    }
    fields.into()
}

fn operation(dice: &mut Dice) -> (&'static str, &'static str, Value) {
    match dice.below(10) {
        0..=4 => ("paths", "notPaths", strings(dice, PATHS)),
        5..=7 => ("methods", "notMethods", strings(dice, METHODS)),
        8 => ("hosts", "notHosts", strings(dice, HOSTS)),
        _ => ("ports", "notPorts", strings(dice, PORTS)),
    }
}

fn source(dice: &mut Dice) -> (&'static str, &'static str, Value) {
    match dice.below(10) {
        0..=5 => ("requestPrincipals", "notRequestPrincipals", strings(dice, REQUEST_PRINCIPALS)),
        6 => ("ipBlocks", "notIpBlocks", strings(dice, ADDRESSES)),
        7 => ("remoteIpBlocks", "notRemoteIpBlocks", strings(dice, ADDRESSES)),
        8 => ("principals", "notPrincipals", strings(dice, PRINCIPALS)),
        _ => ("namespaces", "notNamespaces", strings(dice, &["a", "a*"])),
    }
}

fn condition(dice: &mut Dice) -> Value {
    let (key, values) = match dice.below(20) {
        0..=6 => (format!("request.headers[{}]", dice.pick(HEADERS)), strings(dice, VALUES)),
        7..=13 => {
            let (claim, value) = *dice.one(CLAIMS);
            (format!("request.auth.claims[{claim}]"), json!([value]))
        }
        14 => ("request.auth.principal".to_owned(), strings(dice, REQUEST_PRINCIPALS)),
        15 => ("request.auth.audiences".to_owned(), strings(dice, &["fhir", "*", "x"])),
        16 => ("request.auth.presenter".to_owned(), strings(dice, &["app", "*"])),
        17 => ("remote.ip".to_owned(), strings(dice, ADDRESSES)),
        18 => ("source.ip".to_owned(), strings(dice, ADDRESSES)),
        _ => match dice.below(3) {
            0 => ("destination.port".to_owned(), strings(dice, PORTS)),
            1 => ("destination.ip".to_owned(), strings(dice, &["127.1.0.0/16", "10.0.0.0/8"])),
            _ => ("source.principal".to_owned(), strings(dice, PRINCIPALS)),
        },
    };
    match dice.below(8) {
        0 | 1 => json!({"key": key, "notValues": values}),
        2 if key.contains('[') => json!({"key": key, "values": values, "notValues": ["b"]}),
        _ => json!({"key": key, "values": values}),
    }
}
