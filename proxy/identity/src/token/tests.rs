//! Form, types, time and audience of tokens: no signature is looked at here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::json;

use super::*;
use crate::tests::{NOW, signer::b64};

fn limits() -> TokenSettings {
    TokenSettings::default()
}

fn token_of(header: &str, payload: &str) -> String {
    format!("{}.{}.{}", b64(header), b64(payload), b64("signature"))
}

fn claims(payload: &str) -> Result<String, Reason> {
    let text = token_of(r#"{"alg":"RS256"}"#, payload);
    Token::parse(text.as_bytes(), &limits()).map(|token| token.issuer().to_owned())
}

fn header(header: &str) -> Result<Option<String>, Reason> {
    Token::parse(token_of(header, "{}").as_bytes(), &limits()).map(|token| token.kid)
}

#[test]
fn every_text_is_envoys_to_the_byte() {
    let texts = [
        (Reason::Missing, "Jwt is missing"),
        (Reason::NotYetValid, "Jwt not yet valid"),
        (Reason::Expired, "Jwt is expired"),
        (
            Reason::BadFormat,
            "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections",
        ),
        (Reason::HeaderBadBase64, "Jwt header is an invalid Base64url encoded"),
        (Reason::HeaderBadJson, "Jwt header is an invalid JSON"),
        (Reason::HeaderBadAlg, "Jwt header [alg] field is required and must be a string"),
        (Reason::HeaderAlgNotSupported, "Jwt header [alg] is not supported"),
        (Reason::HeaderBadKid, "Jwt header [kid] field is not a string"),
        (Reason::PayloadBadBase64, "Jwt payload is an invalid Base64url encoded"),
        (Reason::PayloadBadJson, "Jwt payload is an invalid JSON"),
        (Reason::IssNotString, "Jwt payload [iss] field is not a string"),
        (Reason::SubNotString, "Jwt payload [sub] field is not a string"),
        (Reason::IatNotInteger, "Jwt payload [iat] field is not an integer"),
        (Reason::IatOutOfRange, "Jwt payload [iat] field is not a positive 64 bit integer"),
        (Reason::NbfNotInteger, "Jwt payload [nbf] field is not an integer"),
        (Reason::NbfOutOfRange, "Jwt payload [nbf] field is not a positive 64 bit integer"),
        (Reason::ExpNotInteger, "Jwt payload [exp] field is not an integer"),
        (Reason::ExpOutOfRange, "Jwt payload [exp] field is not a positive 64 bit integer"),
        (Reason::JtiNotString, "Jwt payload [jti] field is not a string"),
        (Reason::AudNotString, "Jwt payload [aud] field is not a string or string list"),
        (Reason::SignatureBadBase64, "Jwt signature is an invalid Base64url encoded"),
        (Reason::UnknownIssuer, "Jwt issuer is not configured"),
        (Reason::AudienceNotAllowed, "Audiences in Jwt are not allowed"),
        (Reason::VerificationFails, "Jwt verification fails"),
        (Reason::Ed25519SignatureLength, "Jwt ED25519 signature is wrong length"),
        (Reason::MultipleTokens, "Found multiple Jwt tokens"),
        (Reason::NoMatchingKey, "Jwks doesn't have key to match kid or alg from Jwt"),
        (Reason::NoValidKeys, "Jwks doesn't have any valid public key"),
        (Reason::KeysUnavailable, "Jwks remote fetch is failed"),
        (Reason::HeaderCritical, "Jwt header has a critical extension that is not supported"),
        (Reason::TooLarge, "Jwt is too large"),
    ];
    assert_eq!(texts.len(), Reason::ALL.len());
    for ((reason, text), listed) in texts.iter().zip(Reason::ALL) {
        assert_eq!((reason, reason.to_string().as_str()), (listed, *text));
        assert!(
            reason
                .name()
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte.is_ascii_digit())
        );
    }
    let audience: Vec<_> = Reason::ALL.iter().filter(|reason| reason.is_audience()).collect();
    assert_eq!(audience, [&Reason::AudienceNotAllowed]);
}

#[test]
fn form_must_be_exactly_three_parts() {
    let limits = limits();
    let parse = |text: &str| Token::parse(text.as_bytes(), &limits).map(drop).unwrap_err();
    for text in ["", ".", "..", "a", "a.b", "a.b.", ".a.b", "a..b", "a.b.c.d", "a.b.c.", ".a.b.c", "a.b..c"] {
        assert_eq!(parse(text), Reason::BadFormat, "{text}");
    }
    assert_eq!(Token::parse(b"a.b.\xff", &limits).map(drop).unwrap_err(), Reason::BadFormat);
    // A JWE has five parts.
    assert_eq!(parse("a.b.c.d.e"), Reason::BadFormat);
}

#[test]
fn base64url_is_strict_but_for_padding_of_the_signature() {
    let limits = limits();
    let good = |part| match part {
        0 => b64(r#"{"alg":"RS256"}"#),
        1 => b64("{ }"),
        _ => b64("s"),
    };
    let with = |part: usize, text: &str| {
        let mut parts = [good(0), good(1), good(2)];
        parts[part] = text.to_owned();
        Token::parse(parts.join(".").as_bytes(), &limits).map(drop)
    };
    let wrong = [Reason::HeaderBadBase64, Reason::PayloadBadBase64, Reason::SignatureBadBase64];
    for (part, reason) in wrong.into_iter().enumerate() {
        for text in ["e+/=", "é", "e w", "e\nw", "A", "e30,", "ew\u{0}="] {
            assert_eq!(with(part, text), Err(reason), "{text:?}");
        }
    }
    assert_eq!(with(0, "eyJhbGciOiJSUzI1NiJ9=="), Err(Reason::HeaderBadBase64));
    assert_eq!(with(1, "e30="), Err(Reason::PayloadBadBase64));
    assert_eq!(with(2, "cw=="), Ok(()), "Envoy takes a padded signature");
    assert_eq!(with(2, "cw="), Err(Reason::SignatureBadBase64), "but not half of the padding");
    assert_eq!(with(2, "cw"), Ok(()));
    // Trailing bits would give one signature many spellings.
    assert_eq!(with(2, "cx"), Err(Reason::SignatureBadBase64));
}

#[test]
fn header_members_have_types_and_no_extensions() {
    for (text, expected) in [
        (r#"{"alg":"RS256","kid":"k"}"#, Ok(Some("k".to_owned()))),
        (r#"{"alg":"RS256","kid":""}"#, Ok(None)),
        (r#"{"alg":"RS256","jku":"http://evil","jwk":{},"x5u":"http://evil","x5c":["x"]}"#, Ok(None)),
        (r#"{"kid":"k"}"#, Err(Reason::HeaderBadAlg)),
        (r#"{"alg":null}"#, Err(Reason::HeaderBadAlg)),
        (r#"{"alg":256}"#, Err(Reason::HeaderBadAlg)),
        (r#"{"alg":["RS256"]}"#, Err(Reason::HeaderBadAlg)),
        (r#"{"alg":"none"}"#, Err(Reason::HeaderAlgNotSupported)),
        (r#"{"alg":"None"}"#, Err(Reason::HeaderAlgNotSupported)),
        (r#"{"alg":""}"#, Err(Reason::HeaderAlgNotSupported)),
        (r#"{"alg":"rs256"}"#, Err(Reason::HeaderAlgNotSupported)),
        (r#"{"alg":"RS1"}"#, Err(Reason::HeaderAlgNotSupported)),
        (r#"{"alg":"ES256K"}"#, Err(Reason::HeaderAlgNotSupported)),
        (r#"{"alg":"Ed448"}"#, Err(Reason::HeaderAlgNotSupported)),
        (r#"{"alg":"RS256","kid":7}"#, Err(Reason::HeaderBadKid)),
        (r#"{"alg":"RS256","kid":null}"#, Err(Reason::HeaderBadKid)),
        (r#"{"alg":"RS256","alg":"none"}"#, Err(Reason::HeaderBadJson)),
        (r#"{"alg":"RS256"}x"#, Err(Reason::HeaderBadJson)),
        (r#"["RS256"]"#, Err(Reason::HeaderBadJson)),
        // RFC 7515 section 4.1.11: what we do not understand must be refused. Envoy ignores it.
        (r#"{"alg":"RS256","crit":["exp"]}"#, Err(Reason::HeaderCritical)),
        (r#"{"alg":"RS256","crit":[]}"#, Err(Reason::HeaderCritical)),
        (r#"{"alg":"RS256","b64":false}"#, Err(Reason::HeaderCritical)),
    ] {
        assert_eq!(header(text), expected, "{text}");
    }
}

#[test]
fn registered_claims_have_types_even_where_unused() {
    for (claim, wrong) in
        [("exp", Reason::ExpOutOfRange), ("nbf", Reason::NbfOutOfRange), ("iat", Reason::IatOutOfRange)]
    {
        let most = format!(r#"{{"{claim}":18446744073709551615}}"#);
        assert_eq!(claims(&most), Err(wrong), "2^64 - 1 is 2^64 as a double, as in Envoy");
    }
    let big = "18446744073709551616";
    for (text, expected) in [
        (r#"{"iss":"i"}"#, Ok("i")),
        ("{}", Ok("")),
        (r#"{"iat":1.9,"nbf":0,"exp":18446744073709549568}"#, Ok("")),
        (r#"{"aud":[]}"#, Ok("")),
        (r#"{"aud":["a","b"]}"#, Ok("")),
        (r#"{"iss":1}"#, Err(Reason::IssNotString)),
        (r#"{"iss":null}"#, Err(Reason::IssNotString)),
        (r#"{"sub":["a"]}"#, Err(Reason::SubNotString)),
        (r#"{"sub":null}"#, Err(Reason::SubNotString)),
        (r#"{"iat":"1"}"#, Err(Reason::IatNotInteger)),
        (r#"{"iat":-1}"#, Err(Reason::IatOutOfRange)),
        (r#"{"nbf":true}"#, Err(Reason::NbfNotInteger)),
        (r#"{"nbf":-0.5}"#, Err(Reason::NbfOutOfRange)),
        (r#"{"exp":"1"}"#, Err(Reason::ExpNotInteger)),
        (r#"{"exp":null}"#, Err(Reason::ExpNotInteger)),
        (r#"{"exp":-1}"#, Err(Reason::ExpOutOfRange)),
        (r#"{"exp":1e20}"#, Err(Reason::ExpOutOfRange)),
        (&format!("{{\"exp\":{big}}}"), Err(Reason::ExpOutOfRange)),
        (r#"{"jti":7}"#, Err(Reason::JtiNotString)),
        (r#"{"aud":7}"#, Err(Reason::AudNotString)),
        (r#"{"aud":null}"#, Err(Reason::AudNotString)),
        (r#"{"aud":["a",7]}"#, Err(Reason::AudNotString)),
        (r#"{"aud":{"a":"b"}}"#, Err(Reason::AudNotString)),
        (r#"{"sub":"a","sub":"b"}"#, Err(Reason::PayloadBadJson)),
        (r#"{"x":{"r":1,"r":2}}"#, Err(Reason::PayloadBadJson)),
        (r#""iss""#, Err(Reason::PayloadBadJson)),
        ("eyJhbGciOiJub25lIn0.e30.", Err(Reason::PayloadBadJson)),
    ] {
        assert_eq!(claims(text), expected.map(str::to_owned), "{text}");
    }
}

#[test]
fn limits_have_effect() {
    let parse = |text: &str, limits: &TokenSettings| Token::parse(text.as_bytes(), limits).map(drop);
    let text = token_of(r#"{"alg":"RS256"}"#, r#"{"a":{"b":{"c":1}}}"#);
    let with = |change: fn(&mut TokenSettings)| {
        let mut limits = limits();
        change(&mut limits);
        limits
    };
    assert_eq!(parse(&text, &limits()), Ok(()));
    assert_eq!(parse(&text, &with(|limits| limits.token_bytes = 10)), Err(Reason::TooLarge));
    assert_eq!(parse(&text, &with(|limits| limits.header_bytes = 10)), Err(Reason::TooLarge));
    assert_eq!(parse(&text, &with(|limits| limits.claims_depth = 2)), Err(Reason::PayloadBadJson));
    assert_eq!(parse(&text, &with(|limits| limits.claims_values = 3)), Err(Reason::PayloadBadJson));
}

#[test]
fn time_allows_a_minute_of_skew_and_no_more() {
    let check = |claims: serde_json::Value| {
        let text = token_of(r#"{"alg":"RS256"}"#, &claims.to_string());
        Token::parse(text.as_bytes(), &limits()).unwrap().check_time(NOW, 60)
    };
    for (claims, expected) in [
        (json!({}), Ok(())),
        (json!({"exp": NOW - 60}), Ok(())),
        (json!({"exp": NOW - 61}), Err(Reason::Expired)),
        (json!({"exp": u64::MAX - 2048}), Ok(())),
        (json!({"exp": 0}), Err(Reason::Expired)),
        (json!({"exp": 0.9}), Err(Reason::Expired)),
        (json!({"nbf": NOW + 60}), Ok(())),
        (json!({"nbf": NOW + 61}), Err(Reason::NotYetValid)),
        (json!({"nbf": NOW + 61, "exp": NOW - 61}), Err(Reason::NotYetValid)),
        (json!({"nbf": 0}), Ok(())),
    ] {
        assert_eq!(check(claims.clone()), expected, "{claims}");
    }
}

#[test]
fn audiences_are_compared_without_scheme_and_one_slash() {
    let check = |aud: serde_json::Value, allowed: &[&str]| {
        let text = token_of(r#"{"alg":"RS256"}"#, &json!({ "aud": aud }).to_string());
        let allowed: Vec<String> = allowed.iter().map(|aud| plain_audience(aud).to_owned()).collect();
        Token::parse(text.as_bytes(), &limits()).unwrap().check_audience(&allowed).is_ok()
    };
    for (aud, allowed, expected) in [
        (json!("fhir"), &["fhir"][..], true),
        (json!("fhir"), &[], true),
        (json!([]), &[], true),
        (json!([]), &["fhir"], false),
        (json!(["account", "fhir"]), &["x", "fhir"], true),
        (json!("Fhir"), &["fhir"], false),
        (json!("https://fhir.example/"), &["fhir.example"], true),
        (json!("fhir.example"), &["http://fhir.example/"], true),
        (json!("fhir.example//"), &["fhir.example"], false),
        (json!("HTTPS://fhir.example"), &["fhir.example"], false),
        (json!("fhir/x"), &["fhir"], false),
        (json!(""), &["fhir"], false),
    ] {
        assert_eq!(check(aud.clone(), allowed), expected, "{aud} {allowed:?}");
    }
}
