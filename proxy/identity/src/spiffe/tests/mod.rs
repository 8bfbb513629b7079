//! Every way in which a certificate can be wrong, each with its own reason.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod handshakes;
mod ids;

mod trust;

use std::time::SystemTime;

use certs::{Authority, KeyUse, Leaf, OddIssuer, OddRequest, Purpose, Validity};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::*;

pub(super) const ID: &str = "spiffe://cluster.local/ns/datamesh/sa/fhir-server";
const DAY: u64 = 86_400;

pub(super) fn now() -> UnixTime {
    UnixTime::since_unix_epoch(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap())
}

pub(super) fn bundles(roots: &[(&str, &Authority)]) -> TrustBundles {
    let add = |bundles: TrustBundles, (domain, root): &(&str, &Authority)| {
        bundles.with_domain(domain, Bundle::from_roots(vec![root.certificate_der()]).unwrap()).unwrap()
    };
    roots.iter().fold(TrustBundles::new(1), add)
}

pub(super) fn check(bundles: &TrustBundles, leaf: &Leaf) -> Result<Peer, PeerError> {
    check_chain(bundles, &leaf.chain_der(), Role::Client)
}

pub(super) fn check_chain(
    bundles: &TrustBundles,
    chain: &[CertificateDer<'static>],
    role: Role,
) -> Result<Peer, PeerError> {
    let (leaf, issuers) = chain.split_first().unwrap();
    bundles.verify(leaf, issuers, role, now())
}

struct Mesh {
    root: Authority,
    bundles: TrustBundles,
}

impl Mesh {
    fn new() -> Self {
        let root = Authority::mint("root").unwrap();
        let bundles = bundles(&[("cluster.local", &root)]);
        Self { root, bundles }
    }

    /// The reason for which a spoilt workload certificate is refused.
    fn refuses(&self, spoil: impl FnOnce(&mut OddRequest)) -> &'static str {
        let mut request = OddRequest::workload(ID);
        spoil(&mut request);
        self.reason(&self.root.issue_odd(&request).unwrap())
    }

    fn reason(&self, leaf: &Leaf) -> &'static str {
        check(&self.bundles, leaf).unwrap_err().name()
    }
}

fn seconds_from_now(begin: i64, end: i64) -> Validity {
    let now = i64::try_from(now().as_secs()).unwrap();
    Validity::between(u64::try_from(now + begin).unwrap(), u64::try_from(now + end).unwrap()).unwrap()
}

#[test]
fn a_good_certificate_is_who_it_says() {
    let mesh = Mesh::new();
    let peer = check(&mesh.bundles, &mesh.root.issue_odd(&OddRequest::workload(ID)).unwrap()).unwrap();
    assert_eq!(peer.id.to_string(), ID);
    let intermediate = mesh.root.odd_intermediate("intermediate", &OddIssuer::default()).unwrap();
    let mut request = OddRequest::workload(ID);
    request.dns.push("fhir.example".to_owned());
    let leaf = intermediate.issue_odd(&request).unwrap();
    assert_eq!(check(&mesh.bundles, &leaf).unwrap().id.to_string(), ID, "other names do no harm");
    assert!(check_chain(&mesh.bundles, &leaf.chain_der(), Role::Server).is_ok());
}

#[test]
fn expired_and_not_yet_valid() {
    let mesh = Mesh::new();
    assert_eq!(mesh.refuses(|leaf| leaf.validity = Some(seconds_from_now(-7200, -60))), "expired");
    assert_eq!(mesh.refuses(|leaf| leaf.validity = Some(seconds_from_now(3600, 7200))), "not_yet_valid");
    for (validity, reason) in
        [(seconds_from_now(-7200, -60), "expired"), (seconds_from_now(3600, 7200), "not_yet_valid")]
    {
        let issuer = OddIssuer { validity: Some(validity), ..OddIssuer::default() };
        let intermediate = mesh.root.odd_intermediate("intermediate", &issuer).unwrap();
        let leaf = intermediate.issue_odd(&OddRequest::workload(ID)).unwrap();
        assert_eq!(mesh.reason(&leaf), reason, "an issuer's dates hold too");
    }
}

#[test]
fn names() {
    let mesh = Mesh::new();
    assert_eq!(mesh.refuses(|leaf| leaf.uris.clear()), "no_san");
    let dns_only = |leaf: &mut OddRequest| {
        leaf.uris.clear();
        leaf.dns.push("fhir-server.datamesh.svc".to_owned());
    };
    assert_eq!(mesh.refuses(dns_only), "no_uri_san");
    assert_eq!(mesh.refuses(|leaf| leaf.uris.push(ID.to_owned())), "many_uri_sans", "even the same twice");
    let other = "spiffe://cluster.local/ns/datamesh/sa/other";
    assert_eq!(mesh.refuses(|leaf| leaf.uris.push(other.to_owned())), "many_uri_sans");
    let web = |leaf: &mut OddRequest| leaf.uris.push("https://fhir.example/".to_owned());
    assert_eq!(mesh.refuses(web), "many_uri_sans", "of whatever scheme");
    assert_eq!(
        mesh.refuses(|leaf| leaf.uris = vec!["https://fhir.example/".to_owned()]),
        "invalid_spiffe_id"
    );
    let short = "spiffe://cluster.local/fhir-server".to_owned();
    assert_eq!(mesh.refuses(|leaf| leaf.uris = vec![short]), "not_a_workload_id");
}

#[test]
fn a_root_vouches_for_its_own_trust_domain_only() {
    let (ours, theirs) = (Authority::mint("ours").unwrap(), Authority::mint("theirs").unwrap());
    let bundles = bundles(&[("cluster.local", &ours), ("partner.example", &theirs)]);
    let of = |root: &Authority, id: &str| {
        check(&bundles, &root.issue_odd(&OddRequest::workload(id)).unwrap()).map_err(PeerError::name)
    };
    let partner = "spiffe://partner.example/ns/datamesh/sa/fhir-server";
    assert_eq!(of(&ours, ID).unwrap().id.to_string(), ID);
    assert_eq!(of(&theirs, partner).unwrap().id.to_string(), partner);
    assert_eq!(of(&theirs, ID).unwrap_err(), "wrong_trust_domain");
    assert_eq!(of(&ours, partner).unwrap_err(), "wrong_trust_domain");
    assert_eq!(of(&ours, "spiffe://elsewhere/ns/a/sa/b").unwrap_err(), "unknown_trust_domain");
}

#[test]
fn a_root_of_the_same_name_with_another_key_vouches_for_nothing() {
    let (ours, fake) = (Authority::mint("root").unwrap(), Authority::mint("root").unwrap());
    let bundles = bundles(&[("cluster.local", &ours)]);
    let leaf = fake.issue_odd(&OddRequest::workload(ID)).unwrap();
    assert_eq!(check(&bundles, &leaf).unwrap_err().name(), "bad_signature");
}

#[test]
fn chains_that_lead_nowhere() {
    let mesh = Mesh::new();
    assert_eq!(mesh.reason(&certs::odd_self_signed(&OddRequest::workload(ID)).unwrap()), "self_signed");
    let intermediate = mesh.root.odd_intermediate("intermediate", &OddIssuer::default()).unwrap();
    let leaf = intermediate.issue_alone(&OddRequest::workload(ID)).unwrap();
    assert_eq!(mesh.reason(&leaf), "incomplete_chain", "the intermediate is missing");
    let stranger = Authority::mint("stranger").unwrap();
    let leaf = stranger.issue_odd(&OddRequest::workload(ID)).unwrap();
    let with_root = [leaf.certificate_der().clone(), stranger.certificate_der()];
    let refused = check_chain(&mesh.bundles, &with_root, Role::Client).unwrap_err();
    assert_eq!(refused.name(), "untrusted_issuer", "a root that came along is no root of ours");
    let leaf = mesh.root.issue_odd(&OddRequest::workload(ID)).unwrap();
    let long = vec![leaf.certificate_der().clone(); 10];
    assert_eq!(check_chain(&mesh.bundles, &long, Role::Client).unwrap_err().name(), "chain_too_long");
}

#[test]
fn flags_and_usages_of_the_leaf() {
    let mesh = Mesh::new();
    assert_eq!(mesh.refuses(|leaf| leaf.ca = true), "ca_as_leaf");
    assert_eq!(mesh.refuses(|leaf| leaf.uses.clear()), "leaf_key_usage", "X509-SVID 4.3: it must be there");
    assert_eq!(mesh.refuses(|leaf| leaf.uses = vec![KeyUse::KeyEncipherment]), "leaf_key_usage");
    for forbidden in [KeyUse::KeyCertSign, KeyUse::CrlSign] {
        assert_eq!(mesh.refuses(|leaf| leaf.uses.push(forbidden)), "leaf_key_usage");
    }
    assert_eq!(mesh.refuses(|leaf| leaf.purpose = Some(Purpose::Server)), "extended_key_usage");
    let client = OddRequest { purpose: Some(Purpose::Client), ..OddRequest::workload(ID) };
    let client = mesh.root.issue_odd(&client).unwrap().chain_der();
    assert!(check_chain(&mesh.bundles, &client, Role::Client).is_ok());
    let refused = check_chain(&mesh.bundles, &client, Role::Server).unwrap_err();
    assert_eq!(refused.name(), "extended_key_usage", "a client's certificate is no server's");
    let plain = mesh.root.issue_odd(&OddRequest { purpose: None, ..OddRequest::workload(ID) }).unwrap();
    assert!(check(&mesh.bundles, &plain).is_ok(), "the extension may be absent");
}

#[test]
fn flags_and_usages_of_issuers() {
    let mesh = Mesh::new();
    let reason = |issuer: OddIssuer| {
        let intermediate = mesh.root.odd_intermediate("intermediate", &issuer).unwrap();
        mesh.reason(&intermediate.issue_odd(&OddRequest::workload(ID)).unwrap())
    };
    assert_eq!(reason(OddIssuer { ca: false, ..OddIssuer::default() }), "issuer_not_ca");
    let uses = |uses: Vec<KeyUse>| OddIssuer { uses, ..OddIssuer::default() };
    assert_eq!(reason(uses(vec![KeyUse::CrlSign])), "issuer_key_usage");
    assert_eq!(reason(uses(vec![KeyUse::DigitalSignature])), "issuer_key_usage");
    assert_eq!(reason(uses(Vec::new())), "issuer_key_usage", "X509-SVID 4.3: it must be there");
    let short = OddIssuer { path_length: Some(0), ..OddIssuer::default() };
    let intermediate = mesh.root.odd_intermediate("short", &short).unwrap();
    let leaf = intermediate.issue_below("one too many", &OddRequest::workload(ID)).unwrap();
    assert_eq!(mesh.reason(&leaf), "path_length");
    let leaf_as_issuer = mesh.root.issue_odd(&OddRequest::workload(ID)).unwrap();
    let chain = [leaf.certificate_der().clone(), leaf_as_issuer.certificate_der().clone()];
    assert!(check_chain(&mesh.bundles, &chain, Role::Client).is_err());
}

/// Bytes in a certificate, replaced: what no library signs any more.
fn patched(der: &CertificateDer<'_>, from: &[u8], to: &[u8]) -> CertificateDer<'static> {
    let mut bytes = der.to_vec();
    let places: Vec<usize> =
        (0..bytes.len() - from.len()).filter(|at| &bytes[*at..at + from.len()] == from).collect();
    assert!(!places.is_empty(), "nothing to replace");
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to);
    }
    CertificateDer::from(bytes)
}

#[test]
fn weak_keys_and_signatures() {
    let mesh = Mesh::new();
    let reason =
        |leaf: CertificateDer<'static>| check_chain(&mesh.bundles, &[leaf], Role::Client).unwrap_err().name();
    let leaf = mesh.root.issue_odd(&OddRequest::workload(ID)).unwrap();
    let leaf = leaf.certificate_der();
    // ecdsa-with-SHA256 (1.2.840.10045.4.3.2) to ecdsa-with-SHA224 (…3.1)
    let sha256 = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
    let sha224 = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x01];
    assert_eq!(reason(patched(leaf, &sha256, &sha224)), "weak_signature");
    // prime256v1 (1.2.840.10045.3.1.7) to prime192v1 (…3.1.1)
    let p256 = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    let p192 = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x01];
    assert_eq!(reason(patched(leaf, &p256, &p192)), "weak_curve");
    // id-ecPublicKey (1.2.840.10045.2.1) to nothing known
    let kind = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
    let unknown = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x7f];
    assert_eq!(reason(patched(leaf, &kind, &unknown)), "unsupported_key");
    let rsa = OddRequest { key: certs::KeyKind::Rsa2048, ..OddRequest::workload(ID) };
    let rsa = mesh.root.issue_odd(&rsa).unwrap();
    assert!(check(&mesh.bundles, &rsa).is_ok(), "2048 bits are enough");
}

#[test]
fn bytes_that_are_no_certificate() {
    let mesh = Mesh::new();
    let leaf = mesh.root.issue_odd(&OddRequest::workload(ID)).unwrap();
    let mut trailing = leaf.certificate_der().to_vec();
    trailing.push(0);
    for bytes in [Vec::new(), b"garbage".to_vec(), leaf.certificate_der()[..100].to_vec(), trailing] {
        let refused = check_chain(&mesh.bundles, &[CertificateDer::from(bytes)], Role::Client).unwrap_err();
        assert_eq!(refused.name(), "malformed_certificate");
    }
    let with_garbage = [leaf.certificate_der().clone(), CertificateDer::from(b"garbage".to_vec())];
    assert!(
        check_chain(&mesh.bundles, &with_garbage, Role::Client).is_ok(),
        "a certificate too many does no harm"
    );
}

#[test]
fn revoked_by_a_list() {
    let mesh = Mesh::new();
    let [bad, good] = [0, 1].map(|_| mesh.root.issue_odd(&OddRequest::workload(ID)).unwrap());
    let list = mesh.root.revocation_list(&[&bad], seconds_from_now(-60, 3600)).unwrap();
    let bundles = bundles(&[("cluster.local", &mesh.root)]).with_crls(list.as_bytes()).unwrap();
    assert_eq!(check(&bundles, &bad).unwrap_err().name(), "revoked");
    assert!(check(&bundles, &good).is_ok());
    // An intermediate of whose leaves no list speaks.
    let intermediate = mesh.root.odd_intermediate("intermediate", &OddIssuer::default()).unwrap();
    assert!(check(&bundles, &intermediate.issue_odd(&OddRequest::workload(ID)).unwrap()).is_ok());
}

#[test]
fn revoked_by_an_intermediates_list() {
    let mesh = Mesh::new();
    let intermediate = mesh.root.odd_intermediate("intermediate", &OddIssuer::default()).unwrap();
    let leaf = intermediate.issue_odd(&OddRequest::workload(ID)).unwrap();
    let list = intermediate.revocation_list(&[&leaf], seconds_from_now(-60, 3600)).unwrap();
    let bundles = bundles(&[("cluster.local", &mesh.root)]).with_crls(list.as_bytes()).unwrap();
    assert_eq!(check(&bundles, &leaf).unwrap_err().name(), "revoked");
}

#[test]
fn of_an_issuers_lists_the_newest_counts_whichever_was_read_first() {
    let mesh = Mesh::new();
    let [bad, good] = [0, 1].map(|_| mesh.root.issue_odd(&OddRequest::workload(ID)).unwrap());
    let list = |revoked: &[&certs::Leaf], begins, ends| {
        mesh.root.revocation_list(revoked, seconds_from_now(begins, ends)).unwrap()
    };
    let older = list(&[], -3600, 3600);
    let expired = list(&[], -7200, -60);
    let newest = list(&[&bad], -60, 3600);
    // Of one second: the one with the higher number.
    let [first, second] = [list(&[], -60, 3600), list(&[&bad], -60, 3600)];
    for lists in
        [[&older, &newest], [&newest, &older], [&expired, &newest], [&newest, &expired], [&first, &second]]
    {
        let trusted = || bundles(&[("cluster.local", &mesh.root)]);
        let one_file = trusted().with_crls(lists.map(String::as_str).concat().as_bytes()).unwrap();
        let files = lists.iter().fold(trusted(), |trusted, list| trusted.with_crls(list.as_bytes()).unwrap());
        for bundles in [one_file, files] {
            assert_eq!(check(&bundles, &bad).unwrap_err().name(), "revoked");
            assert!(check(&bundles, &good).is_ok());
        }
    }
}

#[test]
fn a_list_that_has_expired_or_is_forged_refuses() {
    let mesh = Mesh::new();
    let leaf = mesh.root.issue_odd(&OddRequest::workload(ID)).unwrap();
    let old = mesh.root.revocation_list(&[], seconds_from_now(-7200, -60)).unwrap();
    let with = |list: &str| bundles(&[("cluster.local", &mesh.root)]).with_crls(list.as_bytes()).unwrap();
    assert_eq!(check(&with(&old), &leaf).unwrap_err().name(), "crl_expired");
    let forger = Authority::mint("root").unwrap();
    let forged = forger.revocation_list(&[], seconds_from_now(-60, 3600)).unwrap();
    assert_eq!(check(&with(&forged), &leaf).unwrap_err().name(), "crl_unusable");
}

#[test]
fn a_root_that_has_expired_vouches_for_nothing() {
    let validity = seconds_from_now(-(DAY as i64), -60);
    let root = Authority::mint_with("old", certs::KeyKind::default(), validity).unwrap();
    let bundles = bundles(&[("cluster.local", &root)]);
    let leaf = root.issue_odd(&OddRequest::workload(ID)).unwrap();
    assert_eq!(check(&bundles, &leaf).unwrap_err().name(), "root_expired");
    let fresh = Authority::mint("fresh").unwrap();
    let both = bundles
        .with_domain("cluster.local", Bundle::from_roots(vec![fresh.certificate_der()]).unwrap())
        .unwrap();
    assert!(check(&both, &fresh.issue_odd(&OddRequest::workload(ID)).unwrap()).is_ok());
    assert!(check(&both, &leaf).is_err(), "beside a root that holds, too");
}
