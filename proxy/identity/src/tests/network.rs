//! Keys of providers: fetched, refreshed, kept, and never waited for without need.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use policy::istio::{JwtRule, KeySource};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{
    NOW, ask, bearer, claims,
    provider::{Provider, Reply},
    rule,
    signer::{Signer, b64, jwks},
    with,
};
use crate::{
    Authenticator, Clock, Health, IdentitySettings, IssuerStatus, ProviderSettings, RejectionReason as Reason,
};

pub(super) const ISSUER: &str = "https://idp.example/realms/r";

/// No background fetches, quick retries.
pub(super) fn settings() -> IdentitySettings {
    let mut settings = IdentitySettings::default();
    settings.keys.refresh_seconds = 3_600;
    settings.keys.retry_min_ms = 20;
    settings.keys.retry_max_ms = 50;
    settings.health.down_after_seconds = 0;
    settings
}

pub(super) fn start(settings: IdentitySettings) -> Arc<Authenticator> {
    Authenticator::new(settings, Clock::Fixed(NOW), CancellationToken::new()).unwrap()
}

pub(super) fn uri_rule(issuer: &str, uri: String) -> [Arc<JwtRule>; 1] {
    [Arc::new(rule(issuer, KeySource::Uri(uri)))]
}

pub(super) async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let end = Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(Instant::now() < end, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(super) fn status(authenticator: &Authenticator) -> IssuerStatus {
    authenticator.issuers().into_iter().next().unwrap()
}

async fn reason(authenticator: &Authenticator, rules: &[Arc<JwtRule>], token: &str) -> Option<Reason> {
    bearer(token).of(authenticator, rules).await.err().map(|rejection| rejection.reason)
}

fn made_up(kid: usize) -> String {
    let header = json!({"alg": "RS256", "kid": format!("made-up-{kid}")}).to_string();
    format!("{}.{}.{}", b64(header), b64(claims(ISSUER).to_string()), b64([0; 256]))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_10000_made_up_kids_costs_the_provider_one_request() {
    let provider = Provider::start().await;
    let signer = Signer::new("k", "RS256");
    provider.set("/certs", Reply::ok(jwks(&[&signer])));
    let mut settings = settings();
    settings.keys.kid_refetch_interval_ms = 600_000;
    let authenticator = start(settings);
    let rules = uri_rule(ISSUER, provider.url("/certs"));
    let known = bearer(&signer.token(&claims(ISSUER)));
    let first = known.of(&authenticator, &rules).await.map(drop);
    assert_eq!(first, Ok(()), "{:?}", authenticator.issuers());
    assert_eq!(provider.hits("/certs"), 1);

    // The provider is slow now: whoever has to wait for it shows.
    provider.set("/certs", Reply::ok(jwks(&[&signer])).after(Duration::from_millis(500)));
    let flood = async {
        for batch in 0..10 {
            let asks = (0..1_000).map(|n| {
                let (authenticator, rules) = (&authenticator, &rules);
                async move { reason(authenticator, rules, &made_up(batch * 1_000 + n)).await }
            });
            for refused in join_all(asks).await {
                assert_eq!(refused, Some(Reason::NoMatchingKey));
            }
        }
    };
    let honest = async {
        let fresh: Vec<_> =
            (0..20).map(|n| bearer(&signer.token(&with(claims(ISSUER), json!({ "n": n }))))).collect();
        for ask in fresh {
            assert!(ask.of(&authenticator, &rules).await.is_ok(), "known kids are not delayed");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::join!(flood, honest);
    assert_eq!(provider.hits("/certs"), 2, "one at first, one for the flood");
    let counters = status(&authenticator).counters;
    assert_eq!((counters.fetched, counters.kid_refetches), (2, 1));
    assert!(counters.refetches_suppressed >= 8_000, "{counters:?}");
}

#[tokio::test]
async fn rotated_keys_are_found_at_once_again_and_again() {
    let provider = Provider::start().await;
    let signers: Vec<Signer> = (0..4).map(|n| Signer::new(&format!("k{n}"), "ES256")).collect();
    let authenticator = start(settings());
    let rules = uri_rule(ISSUER, provider.url("/certs"));
    for (round, signer) in signers.iter().enumerate() {
        provider.set("/certs", Reply::ok(jwks(&[signer])));
        let token = signer.token(&claims(ISSUER));
        assert_eq!(reason(&authenticator, &rules, &token).await, None, "round {round}");
        if let Some(before) = round.checked_sub(1).and_then(|before| signers.get(before)) {
            let revoked = before.token(&claims(ISSUER));
            assert_eq!(reason(&authenticator, &rules, &revoked).await, Some(Reason::NoMatchingKey));
        }
        if round > 0 {
            // The revoked token has asked too, in vain; its kid is not asked for again.
            let hits = provider.hits("/certs");
            let revoked = signers[round - 1].token(&with(claims(ISSUER), json!({"n": 1})));
            assert_eq!(reason(&authenticator, &rules, &revoked).await, Some(Reason::NoMatchingKey));
            assert_eq!(provider.hits("/certs"), hits);
            break;
        }
    }
}

#[tokio::test]
async fn rotations_in_a_row_refuse_no_valid_token() {
    let provider = Provider::start().await;
    let authenticator = start(settings());
    let rules = uri_rule(ISSUER, provider.url("/certs"));
    for round in 0..5 {
        let signer = Signer::new(&format!("k{round}"), "ES256");
        provider.set("/certs", Reply::ok(jwks(&[&signer])));
        let tokens: Vec<String> =
            (0..10).map(|n| signer.token(&with(claims(ISSUER), json!({ "n": n })))).collect();
        let asks = tokens.iter().map(|token| reason(&authenticator, &rules, token));
        assert!(join_all(asks).await.iter().all(Option::is_none), "round {round}");
    }
    assert_eq!(provider.hits("/certs"), 5, "one request a rotation, shared by all who wait");
}

#[tokio::test]
async fn a_dead_provider_refuses_no_valid_token_and_its_health_is_told() {
    let mut provider = Provider::start().await;
    let signer = Signer::new("k", "ES256");
    provider.set("/certs", Reply::ok(jwks(&[&signer])).header("cache-control", "max-age=0"));
    let mut settings = settings();
    settings.keys.min_refresh_seconds = 0;
    let authenticator = start(settings);
    let rules = uri_rule(ISSUER, provider.url("/certs"));
    authenticator.follow(rules.iter());
    let health = |wanted| {
        let authenticator = &authenticator;
        move || async move { status(authenticator).health == wanted }
    };
    until("up", health(Health::Up)).await;
    provider.kill().await;
    until("down", health(Health::Down)).await;
    let down = status(&authenticator);
    assert_eq!((down.keys, down.from_disk, down.age_seconds), (1, false, Some(0)));
    assert!(down.last_error.as_deref().unwrap().starts_with("keys: no connection"), "{down:?}");
    for n in 0..3 {
        let token = signer.token(&with(claims(ISSUER), json!({ "n": n })));
        assert_eq!(reason(&authenticator, &rules, &token).await, None);
    }
    provider.revive().await;
    until("up again", health(Health::Up)).await;
    assert_eq!(status(&authenticator).last_error, None);
}

#[tokio::test]
async fn a_provider_that_comes_late_is_found_soon() {
    let mut provider = Provider::start().await;
    let signer = Signer::new("k", "ES256");
    provider.set("/certs", Reply::ok(jwks(&[&signer])));
    provider.kill().await;
    let authenticator = start(settings());
    let rules = uri_rule(ISSUER, provider.url("/certs"));
    let token = signer.token(&claims(ISSUER));
    assert_eq!(reason(&authenticator, &rules, &token).await, Some(Reason::KeysUnavailable));
    provider.revive().await;
    until("keys", || async { reason(&authenticator, &rules, &token).await.is_none() }).await;
}

#[tokio::test]
async fn a_slow_issuer_delays_no_other_and_is_waited_for_no_longer_than_the_rule_says() {
    let provider = Provider::start().await;
    let (slow, quick) = (Signer::new("slow", "ES256"), Signer::new("quick", "ES256"));
    provider.set("/slow", Reply::ok(jwks(&[&slow])).after(Duration::from_secs(60)));
    provider.set("/quick", Reply::ok(jwks(&[&quick])));
    let authenticator = start(settings());
    let mut slow_rule = rule("https://slow", KeySource::Uri(provider.url("/slow")));
    slow_rule.timeout = Duration::from_millis(700);
    let mut any = rule("", KeySource::Uri(provider.url("/slow")));
    any.timeout = Duration::from_millis(700);
    let quick_rule = rule("https://quick", KeySource::Uri(provider.url("/quick")));
    // The first rule takes any issuer and never gets keys; the second is slow; the third good.
    let rules = [any, slow_rule, quick_rule].map(Arc::new);
    let of_slow = slow.token(&claims("https://slow"));
    let of_quick = quick.token(&claims("https://quick"));
    let waiting = async {
        let begun = Instant::now();
        let refused = reason(&authenticator, &rules, &of_slow).await;
        (refused, begun.elapsed())
    };
    let going = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let begun = Instant::now();
        let refused = reason(&authenticator, &rules, &of_quick).await;
        (refused, begun.elapsed())
    };
    let ((refused, waited), (passed, took)) = tokio::join!(waiting, going);
    assert_eq!((refused, passed), (Some(Reason::KeysUnavailable), None));
    assert!(waited >= Duration::from_millis(600) && waited < Duration::from_secs(3), "{waited:?}");
    assert!(took < Duration::from_millis(500), "{took:?}");
}

#[tokio::test]
async fn more_waiters_than_the_limit_are_refused_at_once() {
    let provider = Provider::start().await;
    provider.set("/certs", Reply::ok("{}").after(Duration::from_secs(60)));
    let mut settings = settings();
    settings.keys.waiters = 3;
    let authenticator = start(settings);
    let mut rule = rule(ISSUER, KeySource::Uri(provider.url("/certs")));
    rule.timeout = Duration::from_millis(800);
    let rules = [Arc::new(rule)];
    let token = made_up(0);
    let times = join_all((0..10).map(|_| async {
        let begun = Instant::now();
        assert_eq!(reason(&authenticator, &rules, &token).await, Some(Reason::KeysUnavailable));
        begun.elapsed() > Duration::from_millis(400)
    }));
    assert_eq!(times.await.into_iter().filter(|waited| *waited).count(), 3);
}

#[tokio::test]
async fn unchanged_keys_are_confirmed_by_304() {
    let provider = Provider::start().await;
    let signer = Signer::new("k", "ES256");
    let reply =
        Reply::ok(jwks(&[&signer])).header("etag", "\"v1\"").header("cache-control", "public, max-age=0");
    provider.set("/certs", reply);
    let mut settings = settings();
    settings.keys.min_refresh_seconds = 0;
    let authenticator = start(settings);
    let rules = uri_rule(ISSUER, provider.url("/certs"));
    let token = signer.token(&claims(ISSUER));
    assert_eq!(reason(&authenticator, &rules, &token).await, None);
    until("304", || async { status(&authenticator).counters.not_modified >= 2 }).await;
    let told = status(&authenticator);
    assert_eq!((told.counters.fetched, told.counters.failed, told.keys), (1, 0, 1));
    assert_eq!(reason(&authenticator, &rules, &token).await, None);
    assert_eq!(authenticator.counters().cache_hits, 1, "a confirmation keeps verified tokens");
}

#[tokio::test]
async fn cve_2026_31837_last_good_keys_stay_when_a_private_key_is_published() {
    let provider = Provider::start().await;
    let (good, leaked) = (Signer::new("good", "ES256"), Signer::new("leaked", "ES256"));
    provider.set("/certs", Reply::ok(jwks(&[&good])));
    let authenticator = start(settings());
    let rules = uri_rule(ISSUER, provider.url("/certs"));
    let token = |signer: &Signer, n: u32| signer.token(&with(claims(ISSUER), json!({ "n": n })));
    assert_eq!(reason(&authenticator, &rules, &token(&good, 0)).await, None);
    let document = json!({"keys": [good.jwk(), with(leaked.jwk(), json!({"d": "AQAB"}))]});
    provider.set("/certs", Reply::ok(document.to_string()));
    assert_eq!(reason(&authenticator, &rules, &token(&leaked, 0)).await, Some(Reason::NoMatchingKey));
    assert_eq!(reason(&authenticator, &rules, &token(&good, 1)).await, None);
    let told = status(&authenticator);
    assert!(told.last_error.unwrap().contains("private key"));
    assert_eq!(told.health, Health::Degraded);
}

#[tokio::test]
async fn cve_2026_31837_a_key_in_use_is_dropped_when_its_private_part_is_published() {
    let provider = Provider::start().await;
    let (good, lost) = (Signer::new("good", "ES256"), Signer::new("lost", "ES256"));
    let both = jwks(&[&good, &lost]);
    provider.set("/certs", Reply::ok(both.clone()));
    let mut settings = settings();
    settings.keys.refresh_seconds = 1;
    settings.keys.min_refresh_seconds = 0;
    let authenticator = start(settings);
    let rules = uri_rule(ISSUER, provider.url("/certs"));
    let token = |signer: &Signer, n: u32| signer.token(&with(claims(ISSUER), json!({ "n": n })));
    let seen = token(&lost, 0);
    assert_eq!(reason(&authenticator, &rules, &seen).await, None);
    let document = json!({"keys": [good.jwk(), with(lost.jwk(), json!({"d": "AQAB"}))]});
    provider.set("/certs", Reply::ok(document.to_string()));
    until("the key is dropped", || async { status(&authenticator).keys == 1 }).await;
    assert_eq!(
        reason(&authenticator, &rules, &seen).await,
        Some(Reason::NoMatchingKey),
        "nor from the cache"
    );
    assert_eq!(reason(&authenticator, &rules, &token(&good, 1)).await, None);
    // A document that hides the accident again does not make the key good.
    provider.set("/certs", Reply::ok(both));
    until("a good document", || async { status(&authenticator).last_error.is_none() }).await;
    assert_eq!(reason(&authenticator, &rules, &token(&lost, 2)).await, Some(Reason::NoMatchingKey));
    assert_eq!(reason(&authenticator, &rules, &token(&good, 2)).await, None);
}

#[tokio::test]
async fn follow_fetches_ahead_and_forgets_what_is_no_longer_named() {
    let provider = Provider::start().await;
    let signer = Signer::new("k", "ES256");
    provider.set("/a", Reply::ok(jwks(&[&signer])));
    provider.set("/b", Reply::ok(jwks(&[&signer])));
    let authenticator = start(settings());
    let a = uri_rule("https://a", provider.url("/a"));
    let b = uri_rule("https://b", provider.url("/b"));
    authenticator.follow(a.iter().chain(a.iter()).chain(b.iter()));
    until("both", || async { authenticator.issuers().iter().all(|one| one.keys == 1) }).await;
    assert_eq!(authenticator.issuers().len(), 2, "one entry for rules with the same keys");
    authenticator.follow(b.iter());
    assert_eq!(status(&authenticator).issuer, "https://b");
    assert_eq!(authenticator.issuers().len(), 1);
    assert_eq!(reason(&authenticator, &b, &signer.token(&claims("https://b"))).await, None);
    assert_eq!((provider.hits("/a"), provider.hits("/b")), (1, 1));
}

#[tokio::test]
async fn an_operator_may_name_another_address() {
    let provider = Provider::start().await;
    let signer = Signer::new("k", "ES256");
    provider.set("/own", Reply::ok(jwks(&[&signer])));
    let mut settings = settings();
    settings.providers = vec![ProviderSettings {
        issuer: ISSUER.to_owned(),
        jwks_uri: Some("http://idp.example/own".to_owned()),
        connect_to: Some(provider.address),
        ca_file: None,
    }];
    let authenticator = start(settings.clone());
    let rules = [Arc::new(rule(ISSUER, KeySource::Discovery))];
    assert_eq!(reason(&authenticator, &rules, &signer.token(&claims(ISSUER))).await, None);
    assert_eq!(status(&authenticator).keys_from, "http://idp.example/own");
    settings.providers.extend(settings.providers.clone());
    let twice = Authenticator::new(settings, Clock::System, CancellationToken::new());
    assert!(twice.err().unwrap().to_string().contains("twice"));
}

#[tokio::test]
async fn requests_without_a_token_wait_for_nobody() {
    let provider = Provider::start().await;
    provider.set("/certs", Reply::ok("{}").after(Duration::from_secs(60)));
    let authenticator = start(settings());
    let rules = uri_rule(ISSUER, provider.url("/certs"));
    let begun = Instant::now();
    assert!(ask().of(&authenticator, &rules).await.unwrap().identity.is_none());
    let expired = Signer::new("k", "ES256").token(&with(claims(ISSUER), json!({"exp": 1})));
    assert_eq!(reason(&authenticator, &rules, &expired).await, Some(Reason::Expired));
    assert!(begun.elapsed() < Duration::from_secs(1));
}
