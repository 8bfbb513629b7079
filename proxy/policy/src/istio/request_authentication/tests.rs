#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use super::*;
use crate::manifest::parse;

const KEY: &str = r#"{"keys":[{"kty":"RSA","kid":"1","n":"AQAB","e":"AQAB"}]}"#;

fn read(spec: &str) -> (Option<RequestAuthentication>, Vec<Problem>) {
    let text = format!(
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\n\
         metadata: {{name: jwt, namespace: datamesh}}\nspec: {spec}\n"
    );
    let (objects, problems) = parse("ra.yaml", &text);
    assert_eq!(problems, []);
    RequestAuthentication::read(&objects[0])
}

fn rule(fields: &str) -> JwtRule {
    let (policy, problems) = read(&format!("{{jwtRules: [{{{fields}}}]}}"));
    assert_eq!(problems, []);
    (*policy.unwrap().rules[0]).clone()
}

#[track_caller]
fn refused(fields: &str, code: &str, field: &str) {
    let (policy, problems) = read(&format!("{{jwtRules: [{{{fields}}}]}}"));
    assert!(policy.is_none(), "{fields}");
    assert!(
        problems.iter().any(|one| one.code == code && one.field == field && one.is_error()),
        "{fields}: {problems:?}"
    );
    let object = problems[0].object.as_deref();
    assert_eq!(object, Some("RequestAuthentication datamesh/jwt"));
}

#[test]
fn defaults_are_filled_in() {
    let rule = rule("issuer: https://idp/realms/r");
    assert_eq!(rule.issuer, "https://idp/realms/r");
    assert_eq!(rule.keys, KeySource::Discovery);
    assert_eq!(rule.timeout, Duration::from_secs(5));
    assert!(!rule.forward_original_token);
    assert_eq!(&*rule.origin, "RequestAuthentication datamesh/jwt");
    assert_eq!(
        rule.places,
        [
            TokenPlace::Header { name: http::header::AUTHORIZATION, prefix: "Bearer ".to_owned() },
            TokenPlace::Parameter("access_token".to_owned()),
        ]
    );
}

#[test]
fn any_place_turns_both_defaults_off() {
    let header = |name: &'static str, prefix: &str| TokenPlace::Header {
        name: HeaderName::from_static(name),
        prefix: prefix.to_owned(),
    };
    let cases = [
        ("fromHeaders: [{name: X-Jwt}]", vec![header("x-jwt", "")]),
        ("fromHeaders: [{name: A, prefix: 'T '}]", vec![header("a", "T ")]),
        ("fromParams: [t]", vec![TokenPlace::Parameter("t".to_owned())]),
        ("fromCookies: [c]", vec![TokenPlace::Cookie("c".to_owned())]),
    ];
    for (fields, places) in cases {
        assert_eq!(rule(&format!("issuer: i, {fields}")).places, places, "{fields}");
    }
}

#[test]
fn every_field_is_read() {
    let rule = rule(&format!(
        "issuer: i, audiences: [a, b], jwks: '{KEY}', outputPayloadToHeader: X-Payload, \
         forwardOriginalToken: true, timeout: 100ms, spaceDelimitedClaims: [roles], \
         outputClaimToHeaders: [{{header: X-User, claim: a.b.c}}]"
    ));
    assert_eq!(rule.audiences, ["a", "b"]);
    assert_eq!(rule.keys, KeySource::Inline(KEY.to_owned()));
    assert_eq!(rule.output_payload_to_header, Some(HeaderName::from_static("x-payload")));
    assert!(rule.forward_original_token);
    assert_eq!(rule.timeout, Duration::from_millis(100));
    assert_eq!(rule.space_delimited_claims, ["roles"]);
    let path = ["a", "b", "c"].map(str::to_owned).to_vec();
    assert_eq!(rule.output_claim_to_headers, [(HeaderName::from_static("x-user"), path)]);
}

#[test]
fn an_issuer_or_a_jwks_uri_is_needed() {
    assert_eq!(rule("jwksUri: 'https://idp/certs'").issuer, "");
    let snake = rule("jwks_uri: 'https://idp/certs'");
    assert_eq!(snake.keys, KeySource::Uri("https://idp/certs".to_owned()));
    refused("audiences: [a]", "jwt-rule-without-issuer", "spec.jwtRules[0]");
    refused(&format!("jwks: '{KEY}'"), "jwt-rule-without-issuer", "spec.jwtRules[0]");
}

#[test]
fn what_admission_refuses_is_refused() {
    let at = "spec.jwtRules[0]";
    refused("issuer: i, jwksURI: x", "unknown-field", &format!("{at}.jwksURI"));
    refused("issuer: ''", "invalid-value", &format!("{at}.issuer"));
    refused("issuer: i, audiences: ['']", "invalid-value", &format!("{at}.audiences[0]"));
    refused("issuer: i, fromParams: ['']", "invalid-value", &format!("{at}.fromParams[0]"));
    refused("issuer: i, fromCookies: ['']", "invalid-value", &format!("{at}.fromCookies[0]"));
    refused("issuer: i, fromHeaders: [{prefix: x}]", "missing-field", &format!("{at}.fromHeaders[0]"));
    let name = format!("{at}.fromHeaders[0].name");
    for bad in ["''", "'a b'", "':path'", "'é'"] {
        refused(&format!("issuer: i, fromHeaders: [{{name: {bad}}}]"), "invalid-header-name", &name);
    }
    refused(
        "issuer: i, outputClaimToHeaders: [{header: x, claim: ''}]",
        "invalid-value",
        &format!("{at}.outputClaimToHeaders[0].claim"),
    );
    for bad in ["5", "soon", "0s", "-1s", "10us"] {
        let fields = format!("issuer: i, timeout: '{bad}'");
        refused(&fields, "invalid-duration", &format!("{at}.timeout"));
    }
    refused("issuer: i, timeout: 5", "wrong-type", &format!("{at}.timeout"));
    refused("issuer: i, jwksUri: 'ftp://x/y'", "invalid-jwks-uri", &format!("{at}.jwksUri"));
    let both = format!("issuer: i, jwksUri: 'https://x/y', jwks: '{KEY}'");
    refused(&both, "jwks-twice", &format!("{at}.jwksUri"));
    refused("jwksUri: 'https://x', jwks_uri: 'https://x'", "invalid-value", at);
    let many = vec!["a"; 65].join(",");
    let fields = format!("issuer: i, spaceDelimitedClaims: [{many}]");
    refused(&fields, "too-many", &format!("{at}.spaceDelimitedClaims"));
}

#[test]
fn headers_that_frame_a_message_take_no_claims() {
    let at = "spec.jwtRules[0]";
    for name in ["Host", "content-length", "Transfer-Encoding", "connection"] {
        let fields = format!("issuer: i, outputPayloadToHeader: {name}");
        refused(&fields, "invalid-header-name", &format!("{at}.outputPayloadToHeader"));
        let fields = format!("issuer: i, outputClaimToHeaders: [{{header: {name}, claim: sub}}]");
        refused(&fields, "invalid-header-name", &format!("{at}.outputClaimToHeaders[0].header"));
    }
}

#[test]
fn too_many_rules_are_refused() {
    let rules = vec!["{issuer: i}"; MAX_JWT_RULES + 1].join(",");
    let (policy, problems) = read(&format!("{{jwtRules: [{rules}]}}"));
    assert!(policy.is_none());
    assert_eq!((problems[0].code, problems[0].field.as_str()), ("too-many", "spec.jwtRules"));
}

#[test]
fn an_inline_key_set_must_be_one() {
    let field = "spec.jwtRules[0].jwks";
    for bad in [
        "",
        "{",
        "[]",
        "{}",
        r#"{"keys":5}"#,
        r#"{"keys":[]}"#,
        r#"{"keys":[5]}"#,
        r#"{"keys":[{}]}"#,
        r#"{"keys":[{"kty":5}]}"#,
    ] {
        refused(&format!("issuer: i, jwks: '{bad}'"), "invalid-jwks", field);
    }
}

#[test]
fn cve_2026_31837_an_inline_key_set_with_a_private_key_is_refused() {
    let field = "spec.jwtRules[0].jwks";
    for bad in [
        r#"{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB","d":"SECRET"}]}"#,
        r#"{"keys":[{"kty":"EC","x":"a","y":"b"},{"kty":"OKP","x":"a","d":"SECRET"}]}"#,
        r#"{"keys":[{"kty":"oct","k":"SECRET"}]}"#,
        r#"{"kty":"RSA","n":"AQAB","e":"AQAB","d":"SECRET"}"#,
    ] {
        refused(&format!("issuer: i, jwks: '{bad}'"), "private-key-in-jwks", field);
        let (_, problems) = read(&format!("{{jwtRules: [{{issuer: i, jwks: '{bad}'}}]}}"));
        assert!(!problems[0].to_string().contains("SECRET"));
    }
}

#[test]
fn the_tutorial_is_read() {
    let (policy, problems) = read(
        "{selector: {matchLabels: {app: fhir-server}}, jwtRules: [{issuer: 'https://k/realms/IDEA4RC', \
         jwksUri: 'https://k/realms/IDEA4RC/protocol/openid-connect/certs'}]}",
    );
    assert_eq!(problems, []);
    let policy = policy.unwrap();
    assert_eq!(policy.target.selector.unwrap()["app"], "fhir-server");
    assert_eq!(policy.namespace, "datamesh");
}

#[test]
fn no_spec_is_an_empty_spec_and_null_is_refused() {
    assert!(read("{}").0.unwrap().rules.is_empty());
    assert!(read("").0.is_none());
    assert!(read("{jwtRules: [null]}").0.is_none());
}
