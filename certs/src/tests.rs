#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::*;

/// What rustls says of a chain when asked for `name` now.
fn verify(
    root: &CertificateDer<'static>,
    leaf: &CertificateDer<'static>,
    between: &[CertificateDer<'static>],
    name: &str,
) -> Result<(), rustls::Error> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    verifier.verify_server_cert(leaf, between, &name, &[], UnixTime::now()).map(|_| ())
}

#[test]
fn leaf_is_accepted_for_its_names_and_no_other() {
    let ca = Authority::mint("test CA").unwrap();
    let leaf = ca.issue(&LeafRequest::for_names(["localhost", "127.0.0.1", "::1"])).unwrap();
    for name in ["localhost", "127.0.0.1", "::1"] {
        verify(&ca.certificate_der(), leaf.certificate_der(), &[], name).unwrap();
    }
    for name in ["example.test", "127.0.0.2"] {
        assert!(verify(&ca.certificate_der(), leaf.certificate_der(), &[], name).is_err());
    }
}

#[test]
fn leaf_of_another_authority_is_refused() {
    let (ours, theirs) = (Authority::mint("same").unwrap(), Authority::mint("same").unwrap());
    let leaf = theirs.issue(&LeafRequest::for_names(["localhost"])).unwrap();
    assert!(verify(&ours.certificate_der(), leaf.certificate_der(), &[], "localhost").is_err());
}

#[test]
fn intermediate_completes_the_chain() {
    let root = Authority::mint("root").unwrap();
    let between = root.intermediate("between").unwrap();
    let leaf = between.issue(&LeafRequest::for_names(["localhost"])).unwrap();
    let trusted = root.certificate_der();
    assert!(verify(&trusted, leaf.certificate_der(), &[], "localhost").is_err());
    verify(&trusted, leaf.certificate_der(), &[between.certificate_der()], "localhost").unwrap();
    assert_eq!(leaf.chain_pem().matches("BEGIN CERTIFICATE").count(), 2);
}

#[test]
fn expired_and_future_leaves_are_refused() {
    let ca = Authority::mint("test CA").unwrap();
    let now = UnixTime::now().as_secs();
    for (from, to) in [(now - 7200, now - 3600), (now + 3600, now + 7200)] {
        let request = LeafRequest {
            validity: Some(Validity::between(from, to).unwrap()),
            ..LeafRequest::for_names(["localhost"])
        };
        let leaf = ca.issue(&request).unwrap();
        assert!(verify(&ca.certificate_der(), leaf.certificate_der(), &[], "localhost").is_err());
    }
}

#[test]
fn spiffe_id_is_the_only_uri_name() {
    let id = "spiffe://cluster.local/ns/datamesh/sa/fhir-server";
    let ca = Authority::mint("mesh").unwrap();
    let leaf = ca.issue(&LeafRequest::for_workload(id)).unwrap();
    let (_, parsed) = X509Certificate::from_der(leaf.certificate_der()).unwrap();
    let names = parsed.subject_alternative_name().unwrap().unwrap();
    let names: Vec<_> = names.value.general_names.iter().collect();
    assert!(matches!(names.as_slice(), [GeneralName::URI(uri)] if *uri == id), "{names:?}");
}

#[test]
fn rsa_on_request_and_key_fits_certificate() {
    let ca = Authority::mint("test CA").unwrap();
    for key in [KeyKind::EcdsaP256, KeyKind::Rsa2048] {
        let request = LeafRequest { key, ..LeafRequest::for_names(["localhost"]) };
        let leaf = ca.issue(&request).unwrap();
        verify(&ca.certificate_der(), leaf.certificate_der(), &[], "localhost").unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.certificate_der().clone()], leaf.key_der())
            .unwrap();
    }
}

#[test]
fn bad_names_are_refused_with_the_rule_they_break() {
    let ca = Authority::mint("test CA").unwrap();
    let long = "a".repeat(64);
    for dns in ["", "a..b", "-a", "a b", "a\n", "*", "a.*", "naïve.test", long.as_str()] {
        let request = LeafRequest { dns: vec![dns.to_owned()], ..LeafRequest::default() };
        assert!(ca.issue(&request).is_err(), "{dns:?}");
    }
    for id in [
        "https://cluster.local/x",
        "spiffe://",
        "spiffe://Upper/x",
        "spiffe://a/",
        "spiffe://a/x//y",
        "spiffe://a/../y",
        "spiffe://a/x?q",
        "spiffe://a:1/x",
    ] {
        assert!(ca.issue(&LeafRequest::for_workload(id)).is_err(), "{id:?}");
    }
    assert!(matches!(ca.issue(&LeafRequest::default()), Err(Error::NoName)));
}

#[test]
fn validity_rejects_empty_and_unstatable_spans() {
    assert!(Validity::between(10, 10).is_err());
    assert!(Validity::between(10, 9).is_err());
    assert!(Validity::between(0, u64::MAX).is_err());
    assert!(Validity::starting(u64::MAX, std::time::Duration::from_secs(1)).is_err());
}

#[test]
fn key_file_is_private_even_where_a_public_one_was() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("new/deeper");
    std::fs::create_dir_all(&out).unwrap();
    std::fs::write(out.join("tls.key"), "old").unwrap();
    std::fs::set_permissions(out.join("tls.key"), PermissionsExt::from_mode(0o644)).unwrap();
    let ca = Authority::mint("test CA").unwrap();
    let leaf = ca.issue(&LeafRequest::for_names(["localhost"])).unwrap();
    let files = leaf.write_to(&out, &ca).unwrap();
    let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&files.key), 0o600);
    assert_eq!(std::fs::read_to_string(&files.key).unwrap(), leaf.key_pem());
    assert_eq!(std::fs::read_to_string(&files.certificate).unwrap(), leaf.chain_pem());
    assert_eq!(std::fs::read_to_string(&files.ca).unwrap(), ca.certificate_pem());
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), 3, "no leftovers");
}

#[test]
fn write_error_names_the_file() {
    let error = write_private(std::path::Path::new("/proc/none/tls.key"), "x").unwrap_err();
    assert!(error.to_string().contains("/proc/none/tls.key"), "{error}");
}
