//! Tokens of every kind, in every place.

use serde_json::{Value, json};

use super::words::Words;
use crate::oracle::dice::Dice;
use crate::oracle::model::{DROPPED, ISSUERS, KeyName, Request, Signature, Text, Token, World};

/// The time, in seconds, by which tokens are made.
#[derive(Debug, Clone, Copy)]
pub struct Clock(pub i64);

/// What may be wrong with a signature.
const SIGNATURES: [Signature; 5] =
    [Signature::Changed, Signature::Cut, Signature::Empty, Signature::Missing, Signature::LooseBits];
const ALGORITHMS: [&str; 18] = [
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "none", "None",
    "HS256", "HS512", "RS999", "rs256", "", "ES256K",
];
/// What an authorization header may say beside a token, or instead.
const AROUND: [(&str, &str); 22] = [
    ("Bearer ", ""),
    ("bearer ", ""),
    ("BEARER ", ""),
    ("xBearer ", ""),
    ("Bearer  ", ""),
    ("Bearer\t", ""),
    ("Bearer", ""),
    ("Basic ", ""),
    ("Basic abc, Bearer ", ""),
    ("Bearer Bearer ", ""),
    ("Bearer x Bearer ", ""),
    ("", ""),
    ("Bearer =", ""),
    ("Bearer \"", "\""),
    ("Bearer ", ";"),
    ("Bearer ", ", x"),
    ("Bearer ", " "),
    ("Bearer ", "="),
    ("Bearer ", "=="),
    ("Bearer ", "."),
    ("Bearer ", ".x"),
    ("Bearer !!", "!!"),
];
/// What is no token.
const NONSENSE: [&str; 9] =
    ["", "x", "..", "a.b.c", "Bearer", "Bearer ", "Bearer !", "Bearer .", "Bearer a.b"];

/// Puts tokens into a request, mostly where the world looks for them.
pub(super) fn place(dice: &mut Dice, request: &mut Request, world: &World, clock: Clock) {
    let rules: Vec<&Value> = world.authentications.iter().flatten().collect();
    if rules.is_empty() && !dice.percent(10) {
        return;
    }
    let count = match dice.below(20) {
        0..=2 => 0,
        3..=17 => 1,
        _ => 2,
    };
    let words = Words::of(world);
    for _ in 0..count {
        let rule = if rules.is_empty() { &Value::Null } else { *dice.one(&rules) };
        let token = token(dice, rule, &words, clock);
        put(dice, request, rule, token);
    }
}

fn put(dice: &mut Dice, request: &mut Request, rule: &Value, token: Token) {
    let places = places(rule);
    let other = [
        "header authorization",
        "param access_token",
        "header x-tok",
        "param jwt",
        "cookie sid",
        "header x-auth",
    ];
    let place = if dice.percent(90) { dice.one(&places).as_str() } else { dice.pick(&other) };
    let (kind, name) = place.split_once(' ').unwrap_or((place, ""));
    match kind {
        "header" => {
            let prefix = if name == "x-auth" {
                "Token "
            } else if name == "x-tok" {
                ""
            } else {
                "Bearer "
            };
            let text = match dice.below(100) {
                0..=3 => Text::raw(*dice.one(&NONSENSE)),
                4..=11 => around(dice, token),
                _ => Text::token(prefix, token),
            };
            request.headers.push((name.to_owned(), text.clone()));
            if dice.percent(3) {
                request.headers.push((name.to_owned(), text));
            }
        }
        "param" => parameter(dice, request, name, token),
        _ => {
            let before = dice.pick(&["", "a=b; ", "a=b;", "x", "a=b, "]);
            let quote = if dice.percent(10) { "\"" } else { "" };
            let mut text = Text::token(&format!("{before}{name}={quote}"), token);
            text.push(quote);
            text.push(dice.pick(&["", "; c=d", ";", "; sid=x"]));
            request.headers.push(("cookie".to_owned(), text));
        }
    }
}

fn around(dice: &mut Dice, token: Token) -> Text {
    let (before, after) = *dice.one(&AROUND);
    let mut text = Text::token(before, token);
    text.push(after);
    text
}

fn parameter(dice: &mut Dice, request: &mut Request, name: &str, token: Token) {
    let plain = request.target.plain();
    // Behind a fragment it would be none.
    let plain: Vec<u8> = plain.split(|byte| *byte == b'#').next().unwrap_or_default().to_vec();
    let mut target = Text::raw(plain.clone());
    target.push(if plain.contains(&b'?') { "&" } else { "?" });
    let named = match dice.below(20) {
        0 => name.replace('_', "%5F"),
        1 => name.to_uppercase(),
        _ => name.to_owned(),
    };
    target.push(&named);
    target.push("=");
    if dice.percent(95) {
        target.0.extend(Text::token("", token).0);
    }
    target.push(dice.pick(&["", "", "", "&a=2", "&", "&z=%41&b=1", "&access_token=x"]));
    request.target = target;
}

/// Where a rule looks.
fn places(rule: &Value) -> Vec<String> {
    let names = |field: &str, kind: &str| -> Vec<String> {
        let list = rule[field].as_array().into_iter().flatten();
        list.filter_map(|one| one["name"].as_str().or(one.as_str()))
            .map(|name| format!("{kind} {name}"))
            .collect()
    };
    let all = [names("fromHeaders", "header"), names("fromParams", "param"), names("fromCookies", "cookie")]
        .concat();
    if all.is_empty() {
        return [
            "header authorization",
            "header authorization",
            "header authorization",
            "param access_token",
        ]
        .map(str::to_owned)
        .to_vec();
    }
    all
}

fn token(dice: &mut Dice, rule: &Value, words: &Words, Clock(now): Clock) -> Token {
    let issuer = rule["issuer"].as_str().unwrap_or(ISSUERS[0]);
    let own = if issuer == ISSUERS[1] { KeyName::B } else { KeyName::A };
    let mut token = Token::of(own, json!({"iss": issuer, "sub": "alice", "exp": now + 36_000}));
    if let Some(audience) = rule["audiences"][0].as_str() {
        token.claims["aud"] = audience.into();
    }
    for _ in 0..dice.below(3) {
        claim(dice, &mut token.claims, words);
    }
    if dice.percent(45) {
        spoil(dice, &mut token, now);
    }
    token
}

/// Claims that policies ask for, in types that they may or may not take.
fn claim(dice: &mut Dice, claims: &mut Value, words: &Words) {
    let others: [(&str, &str); 8] = [
        ("role", "medic"),
        ("realm_access][roles", "medic"),
        ("scope", "read write"),
        ("groups", "g1 g2"),
        ("permission", "p1"),
        ("n", "5"),
        ("a][b", "x"),
        ("azp", "app"),
    ];
    let (path, value) = if !words.claims.is_empty() && dice.percent(80) {
        dice.one(&words.claims).clone()
    } else {
        let (path, value) = *dice.one(&others);
        (path.to_owned(), value.to_owned())
    };
    let text = value.replace('*', dice.pick(&["", "x", "medic", "ical"]));
    let value = match dice.below(16) {
        0..=5 => json!(text),
        6..=8 => json!([text]),
        9 => json!(["x", text]),
        10 => json!([5, text]),
        11 => json!([[text]]),
        12 => dice
            .one(&[json!(5), json!(-3), json!(1.5), json!(5.0), json!(1e20), json!(true), json!(null)])
            .clone(),
        13 => dice.one(&[json!([]), json!({}), json!(""), json!([""]), json!([null]), json!(" ")]).clone(),
        14 => json!({text: "medic"}),
        _ => json!(format!("{text} more")),
    };
    let keys: Vec<&str> = path.split("][").collect();
    // These have a meaning of their own; odd values of theirs are for `spoil`.
    if matches!(keys[0], "iss" | "sub") {
        return;
    }
    let nested = keys.iter().skip(1).rev().fold(value, |inner, key| json!({*key: inner}));
    claims[keys[0]] = nested;
}

fn spoil(dice: &mut Dice, token: &mut Token, now: i64) {
    match dice.below(16) {
        0..=2 => spoil_time(dice, token, now),
        3 | 4 => {
            let odd = [
                json!("x"),
                json!(["x", "fhir"]),
                json!(["fhir", 1]),
                json!([]),
                json!(null),
                json!(1),
                json!({}),
                json!(""),
                json!("https://api.example"),
                json!("http://api.example/"),
                json!("fhir/"),
                json!("FHIR"),
                json!([["fhir"]]),
                json!("https://fhir"),
                json!("fhir//"),
            ];
            token.claims["aud"] = dice.one(&odd).clone();
        }
        5 | 6 => {
            let odd = [
                json!("https://x"),
                json!("https://a.example/realms/r/"),
                json!(ISSUERS[1]),
                json!(ISSUERS[0]),
                json!(1),
                json!(null),
                json!(""),
            ];
            token.claims["iss"] = dice.one(&odd).clone();
            if dice.percent(20) {
                token.claims.as_object_mut().map(|claims| claims.remove("iss"));
            }
        }
        7 => {
            let odd = [
                json!("bob"),
                json!(""),
                json!(1),
                json!(null),
                json!(["x"]),
                json!("x/alice"),
                json!("*"),
                json!({}),
            ];
            token.claims[dice.pick(&["sub", "jti", "azp", "typ"])] = dice.one(&odd).clone();
            if dice.percent(20) {
                token.claims.as_object_mut().map(|claims| claims.remove("sub"));
            }
        }
        8 | 9 => token.key = *dice.one(&KeyName::ALL),
        10 | 11 => {
            token.key =
                *dice.one(&[KeyName::A, KeyName::AnyRsa, KeyName::P256, KeyName::Edwards, KeyName::P521]);
            token.algorithm = Some(*dice.one(&ALGORITHMS));
        }
        12 | 13 => token.signature = *dice.one(&SIGNATURES),
        14 => spoil_header(dice, token),
        _ => spoil_payload(dice, token),
    }
}

fn spoil_time(dice: &mut Dice, token: &mut Token, now: i64) {
    let name = dice.pick(&["exp", "nbf", "iat"]);
    // Far enough from the edges that a slow machine changes nothing.
    let odd = [
        json!(now - 3_600),
        json!(now + 3_600),
        json!(now - 30_000),
        json!(0),
        json!(-1),
        json!(1.5),
        json!("1"),
        json!(null),
        json!(true),
        json!([]),
        json!(1e30),
        json!(18_446_744_073_709_551_615_u64),
        json!(now as f64 + 3_600.5),
        json!(4e9),
    ];
    token.claims[name] = dice.one(&odd).clone();
    if dice.percent(10) {
        token.claims.as_object_mut().map(|claims| claims.remove("exp"));
    }
}

fn spoil_header(dice: &mut Dice, token: &mut Token) {
    let odd = [
        json!({"kid": "zzz"}),
        json!({"kid": ""}),
        json!({"kid": DROPPED}),
        json!({"kid": 1}),
        json!({"kid": null}),
        json!({"kid": "any"}),
        json!({"alg": DROPPED}),
        json!({"alg": 1}),
        json!({"alg": null}),
        json!({"typ": "at+jwt"}),
        json!({"typ": 1}),
        json!({"crit": ["exp"]}),
        json!({"crit": []}),
        json!({"b64": false}),
        json!({"b64": true}),
        json!({"zip": "DEF"}),
        json!({"jku": "http://127.0.0.1/x"}),
        json!({"x": {"a": [1, {"b": 2}]}}),
    ];
    token.header = dice.one(&odd).clone();
}

fn spoil_payload(dice: &mut Dice, token: &mut Token) {
    let text = token.claims.to_string();
    let inside = text.strip_suffix('}').unwrap_or(&text);
    let deep = |depth: usize| format!(",\"x\":{}1{}", "[".repeat(depth), "]".repeat(depth));
    let odd = [
        ",\"x\":1,\"x\":2}".to_owned(),
        ",\"sub\":\"bob\"}".to_owned(),
        ",\"o\":{\"a\":1,\"a\":2}}".to_owned(),
        "} x".to_owned(),
        "} \n".to_owned(),
        "".to_owned(),
        ",}".to_owned(),
        ",\"x\":NaN}".to_owned(),
        ",\"x\":1e999}".to_owned(),
        ",\"x\":123456789012345678901234567890}".to_owned(),
        ",\"x\":01}".to_owned(),
        ",\"x\":\"\\ud800\"}".to_owned(),
        ",\"x\":\"\\ud83d\\ude00\"}".to_owned(),
        ",\"x\":\"\\u0000\"}".to_owned(),
        ",\"\\u0073ub\":\"bob\"}".to_owned(),
        ",\"\":1}".to_owned(),
        ",\"x\":\"\u{1}\"}".to_owned(),
        format!("{}}}", deep(20)),
        format!("{}}}", deep(50)),
        "/*x*/}".to_owned(),
        format!(",\"x\":\"{}\"}}", "y".repeat(12_000)),
    ];
    let payload = match dice.below(24) {
        0 => "x".to_owned(),
        1 => "[]".to_owned(),
        2 => "null".to_owned(),
        _ => format!("{inside}{}", dice.one(&odd)),
    };
    token.payload = Some(payload);
}
