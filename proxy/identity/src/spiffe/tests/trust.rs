//! Bundles: aliases, rotation, what cannot be a root.

use super::*;

#[test]
fn an_alias_is_vouched_for_by_the_domain_it_stands_for() {
    let mesh = Mesh::new();
    let bundles = bundles(&[("cluster.local", &mesh.root)]).with_alias("old.local", "cluster.local").unwrap();
    let id = "spiffe://old.local/ns/datamesh/sa/fhir-server";
    let leaf = mesh.root.issue_odd(&OddRequest::workload(id)).unwrap();
    assert_eq!(check(&bundles, &leaf).unwrap().id.to_string(), id, "it keeps the name it came by");
    assert_eq!(check(&mesh.bundles, &leaf).unwrap_err().name(), "unknown_trust_domain");
}

#[test]
fn old_and_new_root_hold_side_by_side_while_they_overlap() {
    let (old, new) = (Authority::mint("old").unwrap(), Authority::mint("new").unwrap());
    let leaves = [&old, &new].map(|root| root.issue_odd(&OddRequest::workload(ID)).unwrap());
    let holds = |bundles: &TrustBundles| leaves.each_ref().map(|leaf| check(bundles, leaf).is_ok());
    assert_eq!(holds(&bundles(&[("cluster.local", &old)])), [true, false]);
    assert_eq!(holds(&bundles(&[("cluster.local", &old), ("cluster.local", &new)])), [true, true]);
    assert_eq!(holds(&bundles(&[("cluster.local", &new)])), [false, true]);
}

#[test]
fn what_cannot_be_a_root_is_refused() {
    let root = Authority::mint("root").unwrap();
    let leaf = root.issue_odd(&OddRequest::workload(ID)).unwrap();
    let refused = Bundle::from_roots(vec![root.certificate_der(), leaf.certificate_der().clone()]);
    assert_eq!(refused.unwrap_err(), BundleError::Root(2, PeerError::IssuerNotCa));
    assert!(matches!(Bundle::from_pem(b""), Err(BundleError::Empty(_))));
    assert!(matches!(Bundle::from_pem(b"no PEM at all"), Err(BundleError::Empty(_))));
    let twice = root.certificate_pem() + &root.certificate_pem();
    assert_eq!(Bundle::from_pem(twice.as_bytes()).unwrap().certificates().count(), 1);
    let bundle = Bundle::from_pem(root.certificate_pem().as_bytes()).unwrap();
    assert!(TrustBundles::new(1).with_domain("Not A Domain", bundle).is_err());
    assert!(TrustBundles::new(1).with_crls(b"garbage").is_err());
    assert!(TrustBundles::new(1).with_crls(b"").is_err());
}
