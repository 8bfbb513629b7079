//! Verified tokens: no second signature check, and none of it outlives its reasons.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use policy::istio::{JwtRule, KeySource};
use serde_json::json;

use super::{ISSUER, NOW, bearer, claims, offline, rule, signer::Signer, with};
use crate::{
    Authenticator, Clock, IdentitySettings, RejectionReason as Reason,
    cache::{TokenCache, Verified},
    keys::KeySet,
    settings::TokenSettings,
    source::State,
};

fn rules() -> [Arc<JwtRule>; 1] {
    [Arc::new(rule(ISSUER, KeySource::Discovery))]
}

#[tokio::test]
async fn the_second_request_costs_no_signature_check() {
    let signer = Signer::new("k", "RS256");
    let authenticator = offline(&[(ISSUER, &signer)]);
    let ask = bearer(&signer.token(&claims(ISSUER)));
    let (rules, equal) = (rules(), rules());
    let first = ask.of(&authenticator, &rules).await.unwrap().identity.unwrap();
    for rules in [&rules, &equal] {
        let again = ask.of(&authenticator, rules).await.unwrap().identity.unwrap();
        assert!(Arc::ptr_eq(&first, &again), "equal rules of a reloaded manifest share it");
    }
    let counters = authenticator.counters();
    assert_eq!((counters.tokens_verified, counters.cache_hits), (1, 2));
}

#[tokio::test]
async fn a_token_that_differs_in_one_character_is_not_found() {
    let signer = Signer::new("k", "ES256");
    let authenticator = offline(&[(ISSUER, &signer)]);
    let token = signer.token(&claims(ISSUER));
    assert!(bearer(&token).of(&authenticator, &rules()).await.is_ok());
    for at in 0..token.len() {
        let mut other = token.clone().into_bytes();
        other[at] = if other[at] == b'A' { b'B' } else { b'A' };
        let other = String::from_utf8(other).unwrap();
        assert!(bearer(&other).of(&authenticator, &rules()).await.is_err(), "{at}");
    }
}

/// Where a MAC of equal texts differed between two processes' caches, none could guess a tag; where rules
/// were not part of it, one rule's token would pass another.
#[test]
fn a_tag_holds_for_one_rule_one_token_and_one_process() {
    use crate::sources::Sources;

    let sources = Sources::new(
        IdentitySettings::default(),
        Clock::Fixed(NOW),
        crate::sources::Origin::Offline(Vec::new()),
    );
    let one = sources.rule(&Arc::new(rule(ISSUER, KeySource::Discovery)));
    let other = sources.rule(&Arc::new(JwtRule {
        audiences: vec!["fhir".to_owned()],
        ..rule(ISSUER, KeySource::Discovery)
    }));
    let (cache, second) =
        (TokenCache::new(&TokenSettings::default()), TokenCache::new(&TokenSettings::default()));
    let tag = cache.key(&one, b"a.b.c").unwrap();
    assert_eq!(tag, cache.key(&one, b"a.b.c").unwrap());
    for different in [
        cache.key(&other, b"a.b.c"),
        cache.key(&one, b"a.b.d"),
        cache.key(&one, b"a.b.c\0"),
        second.key(&one, b"a.b.c"),
    ] {
        assert_ne!(tag, different.unwrap());
    }
}

#[tokio::test]
async fn rejections_are_counted_by_reason() {
    let signer = Signer::new("k", "ES256");
    let authenticator = offline(&[(ISSUER, &signer)]);
    for _ in 0..3 {
        let rejection = bearer("garbage").of(&authenticator, &rules()).await.unwrap_err();
        assert_eq!(rejection.reason, Reason::BadFormat);
        assert_eq!(rejection.origin.as_deref(), Some("RequestAuthentication ns/jwt"));
    }
    let _ = super::ask().of(&authenticator, &rules()).await;
    let counters = authenticator.counters();
    let count = |name| counters.rejections.iter().find(|(reason, _)| *reason == name).unwrap().1;
    assert_eq!((count("bad_format"), count("expired")), (3, 0));
    assert_eq!(counters.requests_without_token, 1);
}

fn state(signers: &[&Signer]) -> State {
    let keys = KeySet::parse(super::signer::jwks(signers).as_bytes(), 8).unwrap();
    let mut state = State::empty(crate::Health::Up);
    state.take(keys, NOW);
    state
}

fn verified(signer: &Signer, state: &State, exp: Option<u64>) -> Arc<Verified> {
    let text = signer.token(&json!({}));
    let token = crate::token::Token::parse(text.as_bytes(), &TokenSettings::default()).unwrap();
    let key = state.keys.as_ref().unwrap().verify(&token).unwrap();
    Arc::new(Verified {
        identity: Arc::new(crate::output::identity(token, &rule("", KeySource::Discovery))),
        headers: Vec::new(),
        not_before: None,
        expires: exp,
        key,
        generation: state.generation.into(),
        token_bytes: text.len(),
    })
}

#[test]
fn an_entry_ends_with_its_token() {
    let signer = Signer::new("k", "ES256");
    let state = state(&[&signer]);
    let cache = TokenCache::new(&TokenSettings::default());
    let exp = u64::try_from(NOW).unwrap();
    cache.put([1; 16], &verified(&signer, &state, Some(exp)));
    assert!(cache.get(&[1; 16], &state, NOW + 60).is_some());
    assert!(cache.get(&[2; 16], &state, NOW).is_none());
    assert!(cache.get(&[1; 16], &state, NOW + 61).is_none());
    assert!(cache.get(&[1; 16], &state, NOW).is_none(), "it is gone for good");
}

#[test]
fn an_entry_ends_with_its_key_and_outlives_others() {
    let (old, new, third) =
        (Signer::new("old", "ES256"), Signer::new("new", "ES256"), Signer::new("3", "ES256"));
    let before = state(&[&old]);
    let cache = TokenCache::new(&TokenSettings::default());
    cache.put([1; 16], &verified(&old, &before, None));
    assert!(cache.get(&[1; 16], &state(&[&new, &old]), NOW).is_some(), "the key is still there");
    assert!(cache.get(&[1; 16], &state(&[&old, &third]), NOW).is_some());
    assert!(cache.get(&[1; 16], &state(&[&new]), NOW).is_none(), "the key is revoked");
    assert!(cache.get(&[1; 16], &before, NOW).is_none());
    // The same kid with another key is another key.
    cache.put([2; 16], &verified(&old, &before, None));
    assert!(cache.get(&[2; 16], &state(&[&Signer::new("old", "ES256")]), NOW).is_none());
}

#[test]
fn the_cache_is_bounded_and_long_tokens_count_more() {
    let signer = Signer::new("k", "ES256");
    let state = state(&[&signer]);
    let settings = TokenSettings { cache_entries: 10, ..TokenSettings::default() };
    let cache = TokenCache::new(&settings);
    let one = verified(&signer, &state, None);
    for n in 0..200_u8 {
        cache.put([n; 16], &one);
    }
    let held = || (0..200_u8).filter(|n| cache.get(&[*n; 16], &state, NOW).is_some()).count();
    // Bounds are enforced in passing, not at once.
    let until = Instant::now() + Duration::from_secs(5);
    while held() > 10 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(held() <= 10, "{}", held());
    let none = TokenCache::new(&TokenSettings { cache_entries: 0, ..settings });
    none.put([1; 16], &one);
    assert!(none.get(&[1; 16], &state, NOW).is_none());
}

/// Long tokens too, as a Keycloak realm with many roles gives them: what that saves is `bench`'s to say.
#[tokio::test]
async fn of_many_long_tokens_each_is_verified_once() {
    let signer = Signer::new("k", "RS256");
    let authenticator = offline(&[(ISSUER, &signer)]);
    let rules = rules();
    let filler = json!({"realm_access": {"roles": vec!["role-of-some-length"; 30]}});
    let asks: Vec<_> = (0..50)
        .map(|n| bearer(&signer.token(&with(with(claims(ISSUER), filler.clone()), json!({"n": n})))))
        .collect();
    let mut rounds = Vec::new();
    for _ in 0..2 {
        let mut identities = Vec::new();
        for ask in &asks {
            identities.push(ask.of(&authenticator, &rules).await.unwrap().identity.unwrap());
        }
        rounds.push(identities);
    }
    assert!(rounds[0].iter().zip(&rounds[1]).all(|(first, again)| Arc::ptr_eq(first, again)));
    let counters = authenticator.counters();
    assert_eq!((counters.tokens_verified, counters.cache_hits), (50, 50));
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let new =
        |settings| Authenticator::new(settings, Clock::System, tokio_util::sync::CancellationToken::new());
    assert!(new(IdentitySettings::default()).is_err(), "no runtime");
    let mut settings = IdentitySettings::default();
    settings.keys.refresh_seconds = 0;
    assert_eq!(new(settings).err().unwrap().to_string(), "identity.keys.refreshSeconds must be at least 1");
}
