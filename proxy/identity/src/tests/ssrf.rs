//! What a manifest or a provider's answer can make us ask, and what of the answer shows
//! (CVE-2026-41413); further TLS, discovery and the bounds of documents.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use policy::istio::{JwtRule, KeySource};
use serde_json::json;

use super::{
    bearer, claims,
    network::{ISSUER, settings, start, status, uri_rule},
    provider::{Provider, Reply},
    rule,
    signer::{Signer, jwks},
};
use crate::{Authenticator, IdentitySettings, ProviderSettings, RejectionReason as Reason};

/// Asks with a token of `issuer` by those rules; says why the keys could not be had.
async fn failure(settings: IdentitySettings, rules: &[Arc<JwtRule>], issuer: &str) -> String {
    let authenticator = start(settings);
    let token = Signer::new("k", "ES256").token(&claims(issuer));
    let begun = Instant::now();
    let rejection = bearer(&token).of(&authenticator, rules).await.unwrap_err();
    assert_eq!(rejection.reason, Reason::KeysUnavailable);
    assert!(begun.elapsed() < Duration::from_secs(8), "bounded");
    let error = status(&authenticator).last_error.unwrap();
    assert!(!error.contains("SECRET"), "an answer is never echoed: {error}");
    error
}

async fn passes(authenticator: &Authenticator, rules: &[Arc<JwtRule>], token: &str) {
    bearer(token).of(authenticator, rules).await.map(drop).unwrap_or_else(|rejection| {
        panic!("{rejection}: {:?}", status(authenticator).last_error);
    });
}

#[tokio::test]
async fn cve_2026_41413_metadata_and_link_local_addresses_are_not_asked() {
    for uri in [
        "http://169.254.169.254/latest/meta-data/",
        "http://[fe80::1]/certs",
        "http://[fd00:ec2::254]/certs",
        "http://[::ffff:169.254.169.254]/certs",
        "http://[64:ff9b::a9fe:a9fe]/certs",
        "http://100.100.100.200/certs",
        "http://0.0.0.0/certs",
        "http://[::]/certs",
        "http://224.0.0.1/certs",
        "https://169.254.169.254/certs",
        // The same address in the spellings that only a resolver takes.
        "http://2852039166/certs",
        "http://0xa9fea9fe/certs",
        "http://0251.0376.0251.0376/certs",
    ] {
        let error = failure(settings(), &uri_rule(ISSUER, uri.to_owned()), ISSUER).await;
        assert!(error.contains("has no address that may be asked"), "{uri}: {error}");
    }
    let name = "http://metadata.google.internal/computeMetadata/v1/".to_owned();
    let error = failure(settings(), &uri_rule(ISSUER, name), ISSUER).await;
    assert!(error.contains("names a metadata service"), "{error}");
    let mut settings = settings();
    settings.providers = vec![ProviderSettings {
        issuer: ISSUER.to_owned(),
        jwks_uri: None,
        connect_to: Some("169.254.169.254:80".parse().unwrap()),
        ca_file: None,
    }];
    let error = failure(settings, &uri_rule(ISSUER, "http://idp.example/".to_owned()), ISSUER).await;
    assert!(error.contains("has no address that may be asked"), "{error}");
}

#[tokio::test]
async fn cve_2026_41413_neither_redirects_nor_discovery_lead_there() {
    let provider = Provider::start().await;
    let signer = Signer::new("k", "ES256");
    provider.set("/certs", Reply::ok(jwks(&[&signer])));
    for status in [301, 302, 303, 307, 308] {
        let elsewhere = Reply::status(status).header("location", &provider.url("/certs"));
        provider.set("/moved", elsewhere);
        let error = failure(settings(), &uri_rule(ISSUER, provider.url("/moved")), ISSUER).await;
        assert!(error.contains("redirect"), "{error}");
    }
    assert_eq!(provider.hits("/certs"), 0);
    let issuer = provider.url("/realms/r");
    let rules = [Arc::new(rule(&issuer, KeySource::Discovery))];
    for (jwks_uri, expected) in [
        (json!("http://169.254.169.254/"), "has no address that may be asked"),
        (json!("file:///etc/passwd"), "discovery: jwks_uri: it is not a URL"),
        (json!("gopher://127.0.0.1/"), "discovery: jwks_uri: its scheme is neither"),
        (json!("http://u:p@127.0.0.1/"), "it has a user name"),
        (json!(7), "no jwks_uri"),
    ] {
        let document = json!({"issuer": issuer, "jwks_uri": jwks_uri}).to_string();
        provider.set("/realms/r/.well-known/openid-configuration", Reply::ok(document));
        let error = failure(settings(), &rules, &issuer).await;
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn documents_that_cannot_be_used_are_refused_without_echo() {
    let provider = Provider::start().await;
    let good = jwks(&[&Signer::new("k", "ES256")]);
    let large = format!("{}{}", " ".repeat(256 * 1024), good);
    for (reply, expected) in [
        (Reply::status(500), "answered with status 500"),
        (Reply::status(401), "answered with status 401"),
        (Reply::status(204), "answered with status 204"),
        (Reply::status(304), "answered 304 though nothing is held"),
        (Reply::ok("SECRET-OF-THE-INSIDE"), "not a JSON object"),
        (Reply::ok(r#"{"secret":"SECRET"}"#), "it has no `keys`"),
        (Reply::ok(r#"{"keys":"SECRET"}"#), "not a list"),
        (Reply::ok(r#"{"keys":[]}"#), "no key that can verify"),
        (Reply::ok(good.clone()).header("content-encoding", "gzip"), "compressed"),
        (Reply::ok(large), "larger than"),
    ] {
        provider.set("/certs", reply.clone());
        let error = failure(settings(), &uri_rule(ISSUER, provider.url("/certs")), ISSUER).await;
        assert!(error.contains(expected), "{error}, wanted {expected}");
    }
    for (uri, expected) in [
        ("not a url", "it is not a URL"),
        ("ftp://h/x", "neither http nor https"),
        ("http://u:p@127.0.0.1/", "user name"),
    ] {
        let error = failure(settings(), &uri_rule(ISSUER, uri.to_owned()), ISSUER).await;
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn a_provider_that_does_not_end_its_answer_is_left_in_time() {
    let provider = Provider::start().await;
    provider.set("/certs", Reply::ok("{}").after(Duration::from_secs(3_600)));
    let mut short = rule(ISSUER, KeySource::Uri(provider.url("/certs")));
    short.timeout = Duration::from_millis(300);
    let authenticator = start(settings());
    let token = Signer::new("k", "ES256").token(&claims(ISSUER));
    let begun = Instant::now();
    let rejection = bearer(&token).of(&authenticator, &[Arc::new(short)]).await.unwrap_err();
    assert_eq!(rejection.reason, Reason::KeysUnavailable);
    assert!(begun.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn discovery_finds_the_keys_and_is_remembered() {
    let provider = Provider::start().await;
    let signers = [Signer::new("a", "ES256"), Signer::new("b", "ES256")];
    for issuer in [provider.url("/realms/r"), provider.url("/realms/s/")] {
        provider.discoverable(&issuer);
        let path = issuer.strip_prefix(&provider.url("")).unwrap().trim_end_matches('/');
        let document = format!("{path}/.well-known/openid-configuration");
        let authenticator = start(settings());
        let rules = [Arc::new(rule(&issuer, KeySource::Discovery))];
        for signer in &signers {
            provider.set("/certs", Reply::ok(jwks(&[signer])));
            passes(&authenticator, &rules, &signer.token(&claims(&issuer))).await;
        }
        assert_eq!(provider.hits(&document), 1, "the address of the keys is remembered");
    }
}

#[tokio::test]
async fn discovery_must_be_about_the_issuer() {
    let provider = Provider::start().await;
    let issuer = provider.url("/realms/r");
    for other in [json!(provider.url("/realms/R")), json!(format!("{issuer}/")), json!(null)] {
        let document = json!({"issuer": other, "jwks_uri": provider.url("/certs")}).to_string();
        provider.set("/realms/r/.well-known/openid-configuration", Reply::ok(document));
        let rules = [Arc::new(rule(&issuer, KeySource::Discovery))];
        let error = failure(settings(), &rules, &issuer).await;
        assert!(error.contains("about another issuer"), "{error}");
    }
    assert_eq!(provider.hits("/certs"), 0);
    let nowhere = [Arc::new(rule("", KeySource::Discovery))];
    assert!(failure(settings(), &nowhere, "x").await.contains("neither jwksUri nor an issuer"));
}

/// An https server with a certificate for `idp.example` from an authority of its own.
mod tls {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    pub(super) async fn serve(document: String) -> (std::net::SocketAddr, String) {
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_key = KeyPair::generate().unwrap();
        let root = authority.self_signed(&authority_key).unwrap().pem();
        let issuer = Issuer::new(authority, authority_key);
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["idp.example".to_owned()]).unwrap();
        let leaf = leaf.signed_by(&key, &issuer).unwrap();
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![leaf.der().clone()],
                rustls_pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            )
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).await;
                let answer =
                    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{document}", document.len());
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        (address, root)
    }
}

#[tokio::test]
async fn a_private_authority_is_trusted_for_its_provider_alone() {
    let signer = Signer::new("k", "ES256");
    let (address, root) = tls::serve(jwks(&[&signer])).await;
    let folder = tempfile::tempdir().unwrap();
    let (file, empty) = (folder.path().join("ca.pem"), folder.path().join("empty.pem"));
    std::fs::write(&file, root).unwrap();
    std::fs::write(&empty, "no certificate").unwrap();
    let with = |ca_file: Option<&std::path::Path>| {
        let mut settings = settings();
        settings.providers = vec![ProviderSettings {
            issuer: ISSUER.to_owned(),
            jwks_uri: None,
            connect_to: Some(address),
            ca_file: ca_file.map(std::path::Path::to_path_buf),
        }];
        settings
    };
    let rules = uri_rule(ISSUER, "https://idp.example/certs".to_owned());
    let authenticator = start(with(Some(&file)));
    passes(&authenticator, &rules, &signer.token(&claims(ISSUER))).await;

    let error = failure(with(None), &rules, ISSUER).await;
    assert!(error.contains("TLS"), "the system does not know that authority: {error}");
    let other_name = uri_rule(ISSUER, "https://other.example/certs".to_owned());
    assert!(failure(with(Some(&file)), &other_name, ISSUER).await.contains("TLS"));
    assert!(failure(with(Some(&empty)), &rules, ISSUER).await.contains("no certificate"));
    let absent = folder.path().join("absent.pem");
    assert!(failure(with(Some(&absent)), &rules, ISSUER).await.contains("cannot be read"));
}
