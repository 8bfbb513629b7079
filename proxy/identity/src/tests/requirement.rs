//! Which tokens a request must have, where they may stand, and what is done to the request.
//! Expectations as pinned on a running Envoy 1.40 with istiod's translation.

use std::sync::Arc;

use http::{HeaderName, Method};
use policy::istio::{JwtRule, KeySource, TokenPlace};
use serde_json::json;

use super::{
    Ask, ISSUER, NOW, ask, bearer, claims, header_place, offline, rule,
    signer::{Signer, b64, jwks},
    with,
};
use crate::{Authenticated, Authenticator, RejectionReason as Reason};

const OTHER: &str = "https://other.example";

struct World {
    authenticator: Arc<Authenticator>,
    own: Signer,
    other: Signer,
}

fn world() -> World {
    let (own, other) = (Signer::new("own", "ES256"), Signer::new("other", "ES256"));
    let authenticator = offline(&[(ISSUER, &own), (OTHER, &other)]);
    World { authenticator, own, other }
}

impl World {
    async fn ask(&self, rules: &[JwtRule], ask: &Ask) -> Result<Authenticated, Reason> {
        let rules: Vec<Arc<JwtRule>> = rules.iter().cloned().map(Arc::new).collect();
        ask.of(&self.authenticator, &rules).await.map_err(|rejection| rejection.reason)
    }

    async fn subject(&self, rules: &[JwtRule], ask: &Ask) -> Result<Option<String>, Reason> {
        let authenticated = self.ask(rules, ask).await?;
        Ok(authenticated.identity.map(|identity| identity.subject.clone()))
    }

    fn token(&self, sub: &str) -> String {
        self.own.token(&with(claims(ISSUER), json!({ "sub": sub })))
    }

    fn other_token(&self, sub: &str) -> String {
        self.other.token(&with(claims(OTHER), json!({ "sub": sub })))
    }
}

fn one() -> JwtRule {
    rule(ISSUER, KeySource::Discovery)
}

fn two() -> [JwtRule; 2] {
    [one(), rule(OTHER, KeySource::Discovery)]
}

fn at(places: &[TokenPlace]) -> JwtRule {
    JwtRule { places: places.to_vec(), ..one() }
}

fn alice() -> Result<Option<String>, Reason> {
    Ok(Some("alice".to_owned()))
}

#[tokio::test]
async fn no_rules_and_no_token_pass_without_identity() {
    let world = world();
    assert_eq!(world.subject(&[], &bearer("garbage")).await, Ok(None));
    assert_eq!(world.subject(&[one()], &ask()).await, Ok(None));
    assert_eq!(world.subject(&two(), &ask()).await, Ok(None));
    assert_eq!(world.subject(&[one()], &bearer(&world.token("alice"))).await, alice());
}

#[tokio::test]
async fn identity_tells_the_whole_token() {
    let world = world();
    let mut rule = one();
    rule.space_delimited_claims = vec!["groups".to_owned()];
    let claims = with(
        claims(ISSUER),
        json!({"azp": "idea", "aud": ["a", "b"], "scope": "openid  email", "groups": "g h",
               "realm_access": {"roles": ["Medic"]}}),
    );
    let passed = world.ask(&[rule], &bearer(&world.own.token(&claims))).await.unwrap();
    let identity = passed.identity.unwrap();
    assert_eq!(identity.principal().as_deref(), Some("https://idp.example/realms/r/alice"));
    assert_eq!(identity.presenter.as_deref(), Some("idea"));
    assert_eq!(identity.audiences, ["a", "b"]);
    assert_eq!(identity.claims["scope"], json!(["openid", "email"]));
    assert_eq!(identity.claims["groups"], json!(["g", "h"]));
    assert_eq!(identity.claims["realm_access"]["roles"], json!(["Medic"]));
    assert_eq!(passed.issuer.as_deref(), Some(ISSUER));
    assert_eq!(passed.health, Some(crate::Health::Up));
}

#[tokio::test]
async fn order_is_parse_issuer_time_audience_signature() {
    let world = world();
    let rules = [JwtRule { audiences: vec!["fhir".to_owned()], ..one() }];
    // Everything is wrong at first; each row repairs the first fault.
    let mut claims = json!({"iss": 1, "exp": NOW - 3600, "aud": "account"});
    let token = |claims: &serde_json::Value| {
        world.other.sign(&json!({"alg": "ES256", "kid": "own"}), &claims.to_string())
    };
    assert_eq!(world.subject(&rules, &bearer(&token(&claims))).await, Err(Reason::IssNotString));
    claims["iss"] = json!("https://unknown");
    assert_eq!(world.subject(&rules, &bearer(&token(&claims))).await, Err(Reason::UnknownIssuer));
    claims["iss"] = json!(ISSUER);
    assert_eq!(world.subject(&rules, &bearer(&token(&claims))).await, Err(Reason::Expired));
    claims["exp"] = json!(NOW + 300);
    let wrong = world.subject(&rules, &bearer(&token(&claims))).await.unwrap_err();
    assert!(wrong.is_audience(), "a wrong audience with a bad signature is 403");
    claims["aud"] = json!(["account", "https://fhir/"]);
    assert_eq!(world.subject(&rules, &bearer(&token(&claims))).await, Err(Reason::VerificationFails));
    let signed = world.own.token(&with(claims, json!({"sub": "alice"})));
    assert_eq!(world.subject(&rules, &bearer(&signed)).await, alice());
}

#[tokio::test]
async fn the_prefix_is_searched_anywhere_and_case_matters() {
    let world = world();
    let token = world.token("alice");
    let rows = [
        (format!("Bearer {token}"), alice()),
        (format!("xBearer {token}"), alice()),
        (format!("Basic abc,Bearer {token}"), alice()),
        (format!("Bearer   {token}"), alice()),
        (format!("bearer {token}"), Ok(None)),
        (format!("BEARER {token}"), Ok(None)),
        ("Basic abc".to_owned(), Ok(None)),
        (token.clone(), Ok(None)),
        ("Bearer".to_owned(), Ok(None)),
        ("Bearer !!!".to_owned(), Err(Reason::BadFormat)),
        ("Bearer garbage".to_owned(), Err(Reason::BadFormat)),
        (format!("Bearer {token} x"), Err(Reason::SignatureBadBase64)),
        (format!("Bearer {token},Bearer {token}"), Err(Reason::BadFormat)),
    ];
    for (value, expected) in rows {
        assert_eq!(
            world.subject(&[one()], &ask().header("authorization", &value)).await,
            expected,
            "{value}"
        );
    }
}

#[tokio::test]
async fn fhir_n8_two_authorization_headers_are_one_by_a_comma() {
    let world = world();
    let (good, bad) = (format!("Bearer {}", world.token("alice")), "Bearer garbage".to_owned());
    for (first, second) in [(&good, &good), (&good, &bad), (&bad, &good)] {
        let ask = ask().header("authorization", first).header("authorization", second);
        assert!(world.subject(&[one()], &ask).await.is_err(), "{first} {second}");
    }
    let ask = ask().header("authorization", "Basic abc").header("authorization", &good);
    assert_eq!(world.subject(&[one()], &ask).await, alice());
}

#[tokio::test]
async fn empty_tokens_in_other_places_are_refused() {
    let world = world();
    let header = at(&[header_place("x-jwt", "")]);
    assert_eq!(
        world.subject(std::slice::from_ref(&header), &ask().header("x-jwt", "")).await,
        Err(Reason::BadFormat)
    );
    let cookie = at(&[TokenPlace::Cookie("session".to_owned())]);
    assert_eq!(world.subject(&[cookie], &ask().header("cookie", "session=")).await, Err(Reason::BadFormat));
    for target in ["/x?access_token=", "/x?access_token", "/x?a=b&access_token=&c"] {
        assert_eq!(world.subject(&[one()], &ask().target(target)).await, Err(Reason::BadFormat), "{target}");
    }
    // Own places turn the defaults off.
    assert_eq!(world.subject(&[header], &bearer("garbage")).await, Ok(None));
}

#[tokio::test]
async fn of_a_repeated_parameter_the_first_counts_and_all_are_removed() {
    let world = world();
    let token = world.token("alice");
    let ask = ask().target(&format!("/x?a=1&access_token={token}&access_token=garbage"));
    let passed = world.ask(&[one()], &ask).await.unwrap();
    assert_eq!(passed.edits.remove_parameters, ["access_token"]);
    assert_eq!(ask.target.without_parameter("access_token").as_str(), "/x?a=1");
    let ask = ask.target(&format!("/x?access_token=garbage&access_token={token}"));
    assert_eq!(world.subject(&[one()], &ask).await, Err(Reason::BadFormat));
    let ask = ask.target(&format!("/x?access%5ftoken={}", token.replace('.', "%2E")));
    assert_eq!(world.subject(&[one()], &ask).await, alice());
}

#[tokio::test]
async fn cookies_are_found_and_never_removed() {
    let world = world();
    let rules = [at(&[TokenPlace::Cookie("session".to_owned())])];
    let token = world.token("alice");
    for cookie in [
        format!("session={token}"),
        format!("a=b; session={token}; session=garbage"),
        format!("a=b;session=\"{token}\""),
    ] {
        let passed = world.ask(&rules, &ask().header("cookie", &cookie)).await.unwrap();
        assert!(passed.identity.is_some(), "{cookie}");
        assert!(passed.edits.remove_headers.is_empty(), "{cookie}");
    }
    let second = ask().header("cookie", "a=b").header("cookie", &format!("session={token}"));
    assert_eq!(world.subject(&rules, &second).await, alice());
    let other = ask().header("cookie", &format!("Session={token}; xsession={token}; session"));
    assert_eq!(world.subject(&rules, &other).await, Ok(None));
}

#[tokio::test]
async fn one_issuer_with_several_places_needs_all_tokens_good() {
    let world = world();
    let token = world.token("alice");
    let both = bearer(&token).target(&format!("/x?access_token={token}"));
    assert_eq!(world.subject(&[one()], &both).await, alice());
    let bad_query = bearer(&token).target("/x?access_token=garbage");
    assert_eq!(world.subject(&[one()], &bad_query).await, Err(Reason::BadFormat));
    let bad_header = bearer("garbage").target(&format!("/x?access_token={token}"));
    assert_eq!(world.subject(&[one()], &bad_header).await, Err(Reason::BadFormat));
    // Checked from the last place to the first: the query's fault is told.
    let expired = world.own.token(&with(claims(ISSUER), json!({"exp": 1})));
    let both_bad = bearer("garbage").target(&format!("/x?access_token={expired}"));
    assert_eq!(world.subject(&[one()], &both_bad).await, Err(Reason::Expired));
    // Two people: the header's, checked last, is the identity, and both tokens go.
    let two = bearer(&token).target(&format!("/x?access_token={}", world.token("bob")));
    let passed = world.ask(&[one()], &two).await.unwrap();
    assert_eq!(passed.identity.unwrap().subject, "alice");
    assert_eq!(passed.edits.remove_headers, [http::header::AUTHORIZATION]);
    assert_eq!(passed.edits.remove_parameters, ["access_token"]);
}

#[tokio::test]
async fn issuers_that_share_a_place_need_one_to_verify() {
    let world = world();
    assert_eq!(world.subject(&two(), &bearer(&world.token("alice"))).await, alice());
    let other = bearer(&world.other_token("alice"));
    assert_eq!(world.subject(&two(), &other).await, alice());
    let reversed = [rule(OTHER, KeySource::Discovery), one()];
    assert_eq!(world.subject(&reversed, &other).await, alice());
    let unknown = world.own.token(&claims("https://unknown"));
    assert_eq!(world.subject(&two(), &bearer(&unknown)).await, Err(Reason::UnknownIssuer));
    assert_eq!(world.subject(&two(), &bearer("garbage")).await, Err(Reason::BadFormat));
    // The fault of the token's own issuer is told, not that others do not know it.
    for rules in [two(), reversed] {
        let expired = world.own.token(&with(claims(ISSUER), json!({"exp": 1})));
        assert_eq!(world.subject(&rules, &bearer(&expired)).await, Err(Reason::Expired));
    }
    // Signed by one issuer in the other's name.
    let forged = world.other.token(&claims(ISSUER));
    assert_eq!(world.subject(&two(), &bearer(&forged)).await, Err(Reason::NoMatchingKey));
}

#[tokio::test]
async fn issuers_with_separate_places_need_one_good_token_and_the_bad_one_is_forwarded() {
    let world = world();
    let rules = [
        at(&[header_place("x-own", "")]),
        JwtRule { places: vec![header_place("x-other", "")], ..rule(OTHER, KeySource::Discovery) },
    ];
    let both = ask().header("x-own", &world.token("alice")).header("x-other", "garbage");
    let passed = world.ask(&rules, &both).await.unwrap();
    assert_eq!(passed.identity.unwrap().subject, "alice");
    assert_eq!(passed.edits.remove_headers, [HeaderName::from_static("x-own")]);
    let both = ask().header("x-own", "garbage").header("x-other", &world.other_token("alice"));
    assert_eq!(world.subject(&rules, &both).await, alice());
    let bad = ask().header("x-other", "garbage");
    assert_eq!(world.subject(&rules, &bad).await, Err(Reason::BadFormat));
    // A token is good only where its issuer's rule looks.
    let swapped = ask().header("x-own", &world.other_token("alice"));
    assert_eq!(world.subject(&rules, &swapped).await, Err(Reason::UnknownIssuer));
}

#[tokio::test]
async fn of_several_failures_envoys_is_told() {
    let world = world();
    let expired = world.own.token(&with(claims(ISSUER), json!({"exp": 1})));
    let early = world.other.token(&with(claims(OTHER), json!({"nbf": NOW + 3600})));
    let rules = [
        at(&[header_place("x-own", "")]),
        JwtRule { places: vec![header_place("x-other", "")], ..rule(OTHER, KeySource::Discovery) },
    ];
    let both = ask().header("x-own", &expired).header("x-other", &early);
    assert_eq!(world.subject(&rules, &both).await, Err(Reason::Expired), "the AND ends at the first");
    let unknown = ask().header("x-own", &world.other_token("x")).header("x-other", &early);
    assert_eq!(world.subject(&rules, &unknown).await, Err(Reason::NotYetValid));
}

#[tokio::test]
async fn two_rules_of_one_issuer_are_both_tried() {
    let world = world();
    let rules = [
        JwtRule { audiences: vec!["a".to_owned()], ..one() },
        JwtRule { audiences: vec!["b".to_owned()], ..one() },
    ];
    for aud in ["a", "b"] {
        let token = world.own.token(&with(claims(ISSUER), json!({ "aud": aud })));
        assert_eq!(world.subject(&rules, &bearer(&token)).await, alice());
        assert_eq!(world.subject(&rules, &bearer(&token)).await, alice(), "cached");
        let only_b = world.subject(&rules[1..], &bearer(&token)).await;
        assert_eq!(only_b.is_ok(), aud == "b", "a cached token of one rule is not another's");
    }
}

#[tokio::test]
async fn a_rule_without_issuer_takes_any_issuer_but_not_any_key() {
    let signer = Signer::new("k", "ES256");
    let authenticator = offline(&[("", &signer)]);
    let rules = [Arc::new(rule("", KeySource::Uri("https://keys".to_owned())))];
    let good = bearer(&signer.token(&claims("https://whoever")));
    assert!(good.of(&authenticator, &rules).await.unwrap().identity.is_some());
    let forged = bearer(&Signer::new("k", "ES256").token(&claims("https://whoever")));
    assert_eq!(forged.of(&authenticator, &rules).await.unwrap_err().reason, Reason::VerificationFails);
}

#[tokio::test]
async fn inline_keys_are_used_and_bad_ones_refuse() {
    let signer = Signer::new("k", "RS256");
    let world = world();
    let good = rule("https://inline", KeySource::Inline(jwks(&[&signer])));
    let token = bearer(&signer.token(&claims("https://inline")));
    assert_eq!(world.subject(&[good], &token).await, alice());
    let leaked = json!({"keys": [with(signer.jwk(), json!({"d": "AQAB"}))]}).to_string();
    for text in ["", "{}", r#"{"keys":[]}"#, &leaked] {
        let bad = rule("https://inline", KeySource::Inline(text.to_owned()));
        assert_eq!(world.subject(&[bad], &token).await, Err(Reason::NoValidKeys), "{text}");
    }
    // Offline, the table's key of an issuer counts beside the manifest's own.
    let own = rule(ISSUER, KeySource::Inline(jwks(&[&signer])));
    assert_eq!(world.subject(std::slice::from_ref(&own), &bearer(&world.token("alice"))).await, alice());
    assert_eq!(world.subject(&[own], &bearer(&signer.token(&claims(ISSUER)))).await, alice());
    // An issuer that the table does not have has no keys.
    let absent = rule("https://absent", KeySource::Discovery);
    let token = bearer(&signer.token(&claims("https://absent")));
    assert_eq!(world.subject(&[absent], &token).await, Err(Reason::KeysUnavailable));
}

#[tokio::test]
async fn a_preflight_passes_with_a_garbage_token_and_keeps_it() {
    let world = world();
    let mut rule = one();
    rule.output_payload_to_header = Some(HeaderName::from_static("x-payload"));
    let preflight = || {
        bearer("garbage")
            .method(Method::OPTIONS)
            .header("origin", "https://app")
            .header("access-control-request-method", "POST")
    };
    let spoofing = preflight().header("x-payload", "spoofed");
    let passed = world.ask(&[rule.clone()], &spoofing).await.unwrap();
    assert!(passed.identity.is_none());
    assert_eq!(passed.edits.remove_headers, [HeaderName::from_static("x-payload")]);
    for not_one in [
        preflight().method(Method::GET),
        bearer("garbage").method(Method::OPTIONS).header("origin", "https://app"),
        bearer("garbage").method(Method::OPTIONS).header("access-control-request-method", "POST"),
        bearer("garbage")
            .method(Method::OPTIONS)
            .header("origin", "")
            .header("access-control-request-method", "POST"),
    ] {
        assert_eq!(world.subject(&[rule.clone()], &not_one).await, Err(Reason::BadFormat));
    }
}

#[tokio::test]
async fn outputs_are_set_and_spoofed_ones_removed_token_or_not() {
    let world = world();
    let mut own = one();
    own.output_payload_to_header = Some(HeaderName::from_static("x-payload"));
    own.output_claim_to_headers = vec![
        (HeaderName::from_static("x-user"), vec!["sub".to_owned()]),
        (HeaderName::from_static("x-role"), vec!["realm".to_owned(), "role".to_owned()]),
        (HeaderName::from_static("x-none"), vec!["absent".to_owned()]),
    ];
    let mut other = rule(OTHER, KeySource::Discovery);
    other.output_payload_to_header = Some(HeaderName::from_static("x-other-payload"));
    let rules = [own, other];
    let spoofing =
        |ask: Ask| ask.header("x-user", "admin").header("x-none", "admin").header("x-other-payload", "admin");
    let passed = world.ask(&rules, &spoofing(ask())).await.unwrap();
    let removed = ["x-user", "x-none", "x-other-payload"].map(HeaderName::from_static);
    assert_eq!(passed.edits.remove_headers, removed);
    assert!(passed.edits.set_headers.is_empty());

    let claims = with(claims(ISSUER), json!({"realm": {"role": "Medic"}}));
    let token = world.own.token(&claims);
    for _ in ["verified", "cached"] {
        let passed = world.ask(&rules, &spoofing(bearer(&token))).await.unwrap();
        let expected = [&removed[..], &[http::header::AUTHORIZATION]].concat();
        assert_eq!(passed.edits.remove_headers, expected);
        let set: Vec<(&str, &[u8])> =
            passed.edits.set_headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        let payload = b64(claims.to_string());
        let expected: [(&str, &[u8]); 3] =
            [("x-payload", payload.as_bytes()), ("x-user", b"alice"), ("x-role", b"Medic")];
        assert_eq!(set, expected);
    }
}

#[tokio::test]
async fn a_header_that_a_rule_sets_is_no_place_for_tokens() {
    let world = world();
    let mut rule = at(&[header_place("x-jwt", "")]);
    rule.output_payload_to_header = Some(HeaderName::from_static("x-jwt"));
    let passed = world.ask(&[rule], &ask().header("x-jwt", &world.token("alice"))).await.unwrap();
    assert!(passed.identity.is_none());
    assert_eq!(passed.edits.remove_headers, [HeaderName::from_static("x-jwt")]);
}

#[tokio::test]
async fn forward_original_token_keeps_it() {
    let world = world();
    let rules = [JwtRule { forward_original_token: true, ..one() }];
    let token = world.token("alice");
    let ask = bearer(&token).target(&format!("/x?access_token={token}"));
    let passed = world.ask(&rules, &ask).await.unwrap();
    assert!(passed.edits.remove_headers.is_empty() && passed.edits.remove_parameters.is_empty());
}

#[tokio::test]
async fn more_tokens_than_the_limit_are_refused() {
    let world = world();
    let places: Vec<TokenPlace> = (0..9).map(|n| TokenPlace::Parameter(format!("t{n}"))).collect();
    let token = world.token("alice");
    let query = |count: usize| {
        let pairs: Vec<String> = (0..count).map(|n| format!("t{n}={token}")).collect();
        ask().target(&format!("/x?{}", pairs.join("&")))
    };
    assert_eq!(world.subject(&[at(&places)], &query(8)).await, alice());
    assert_eq!(world.subject(&[at(&places)], &query(9)).await, Err(Reason::MultipleTokens));
}
