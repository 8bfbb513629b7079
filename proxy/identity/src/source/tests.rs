//! Keys on disk: across restarts, and what of a file is believed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{fs, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use policy::istio::KeySource;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::disk::{DiskCache, DiskError};
use crate::{
    Authenticator, Clock, IdentitySettings, RejectionReason as Reason,
    keys::KeySet,
    tests::{
        NOW, bearer, claims, rule,
        signer::{Signer, jwks},
        with,
    },
};

const ISSUER: &str = "https://idp.example";

fn cache(folder: &Path) -> DiskCache {
    DiskCache::new(folder, ISSUER, "http://127.0.0.1:9/certs", 64 * 1024, 8)
}

fn keys(signer: &Signer) -> KeySet {
    KeySet::parse(jwks(&[signer]).as_bytes(), 8).unwrap()
}

fn only_file(folder: &Path) -> std::path::PathBuf {
    let mut files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let file = files.next().unwrap();
    assert!(files.next().is_none(), "nothing is left lying about");
    file
}

#[test]
fn a_file_is_written_for_us_alone_and_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("a/b");
    let (cache, signer) = (cache(&inner), Signer::new("k", "RS256"));
    assert!(cache.read(NOW).unwrap().is_none());
    cache.write(&keys(&signer), NOW - 5).unwrap();
    cache.write(&keys(&signer), NOW - 4).unwrap();
    let (read, at) = cache.read(NOW).unwrap().unwrap();
    assert_eq!((read.generation(), at), (keys(&signer).generation(), NOW - 4));
    let file = only_file(&inner);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&inner).unwrap().permissions().mode() & 0o777, 0o700);
    let stored: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    assert_eq!((&stored["version"], &stored["issuer"]), (&json!(1), &json!(ISSUER)));
}

#[test]
fn a_file_that_is_not_ours_or_not_whole_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, signer) = (cache(folder.path()), Signer::new("k", "ES256"));
    cache.write(&keys(&signer), NOW).unwrap();
    let file = only_file(folder.path());
    let good: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let leaked = json!({"keys": [with(signer.jwk(), json!({"d": "AQAB"}))]});
    for (text, expected) in [
        (String::new(), "it is not what we write"),
        ("{}".to_owned(), "it is not what we write"),
        (with(good.clone(), json!({"version": 2})).to_string(), "it is not what we write"),
        (with(good.clone(), json!({"more": 2})).to_string(), "it is not what we write"),
        (with(good.clone(), json!({"issuer": "x"})).to_string(), "another issuer"),
        (with(good.clone(), json!({"keysFrom": "x"})).to_string(), "another issuer"),
        (with(good.clone(), json!({"fetchedAt": NOW + 61})).to_string(), "from the future"),
        (with(good.clone(), json!({"jwks": leaked})).to_string(), "its keys are refused"),
        (with(good.clone(), json!({"jwks": {"keys": []}})).to_string(), "its keys are refused"),
        (format!("{}{good}", " ".repeat(128 * 1024)), "too large"),
    ] {
        fs::write(&file, &text).unwrap();
        let error = cache.read(NOW).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}, wanted {expected}");
    }
    fs::write(&file, good.to_string()).unwrap();
    assert!(cache.read(NOW).unwrap().is_some());
    fs::set_permissions(&file, fs::Permissions::from_mode(0o620)).unwrap();
    assert!(matches!(cache.read(NOW), Err(DiskError::NotOurs)));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let elsewhere = folder.path().join("elsewhere");
    fs::rename(&file, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
    assert!(matches!(cache.read(NOW), Err(DiskError::NotOurs)));
}

/// A port on which nobody listens.
async fn dead_uri() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    format!("http://{address}/certs")
}

fn start(folder: &Path, clock: Clock) -> Arc<Authenticator> {
    let settings =
        IdentitySettings { key_cache_dir: Some(folder.to_path_buf()), ..IdentitySettings::default() };
    Authenticator::new(settings, clock, CancellationToken::new()).unwrap()
}

#[tokio::test]
async fn a_restart_during_an_outage_refuses_no_valid_token_until_the_keys_are_too_old() {
    let folder = tempfile::tempdir().unwrap();
    let signer = Signer::new("k", "ES256");
    let uri = dead_uri().await;
    let disk = DiskCache::new(folder.path(), ISSUER, &uri, 64 * 1024, 8);
    disk.write(&keys(&signer), NOW).unwrap();
    let rules = [Arc::new(rule(ISSUER, KeySource::Uri(uri)))];
    let day = 24 * 3_600;
    for (later, expected) in [(0, None), (day, None), (day + 1, Some(Reason::KeysUnavailable))] {
        let authenticator = start(folder.path(), Clock::Fixed(NOW + later));
        let token = signer.token(&with(claims(ISSUER), json!({"exp": NOW + 2 * day})));
        let rejection = bearer(&token).of(&authenticator, &rules).await.err();
        assert_eq!(rejection.map(|rejection| rejection.reason), expected, "{later}");
        let told = authenticator.issuers().into_iter().next().unwrap();
        assert!(told.from_disk);
        assert_eq!(told.age_seconds, Some(u64::try_from(later).unwrap()));
        assert_eq!(told.keys, usize::from(expected.is_none()));
    }
}

#[tokio::test]
async fn fetched_keys_reach_the_disk_and_serve_the_next_run() {
    let folder = tempfile::tempdir().unwrap();
    let signer = Signer::new("k", "ES256");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}/certs", listener.local_addr().unwrap());
    let document = jwks(&[&signer]);
    let router = axum::Router::new().fallback(move || async move { document });
    let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let rules = [Arc::new(rule(ISSUER, KeySource::Uri(uri)))];
    let ask = bearer(&signer.token(&claims(ISSUER)));
    let first = start(folder.path(), Clock::Fixed(NOW));
    ask.of(&first, &rules).await.unwrap();
    for _ in 0..500 {
        if fs::read_dir(folder.path())
            .unwrap()
            .any(|entry| entry.unwrap().path().extension().is_some_and(|extension| extension == "json"))
        {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(first);
    server.abort();
    let _ = server.await;
    let second = start(folder.path(), Clock::Fixed(NOW + 60));
    ask.of(&second, &rules).await.unwrap();
    assert!(second.issuers()[0].from_disk);
}

#[tokio::test]
async fn keys_that_come_between_the_look_and_the_question_are_looked_at_again() {
    let source = super::Source::remote(
        ISSUER.into(),
        "x".to_owned(),
        crate::settings::KeySettings::default(),
        CancellationToken::new(),
    );
    let seen = super::State::clone(&source.state());
    assert!(!source.wait(source.ask_for_first(&seen).unwrap(), Duration::from_millis(1)).await);
    let mut fetched = seen.clone();
    fetched.take(keys(&Signer::new("k", "ES256")), NOW);
    fetched.finished = 1;
    fetched.ended_at = Some(tokio::time::Instant::now());
    source.started.store(1, std::sync::atomic::Ordering::Release);
    source.publish(fetched.clone());
    for wait in [source.ask_for_first(&seen), source.ask_for_newer(&seen, "k")] {
        assert!(source.wait(wait.unwrap(), Duration::from_millis(1)).await);
    }
    assert!(source.ask_for_first(&fetched).is_none(), "asked a moment ago");
}
