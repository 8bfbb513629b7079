//! SPIFFE ids, to the letter.

use super::{super::parse_id, *};

#[test]
fn what_is_no_spiffe_id_is_refused() {
    let good = parse_id(ID).unwrap();
    assert_eq!((good.namespace.as_str(), good.service_account.as_str()), ("datamesh", "fhir-server"));
    assert!(parse_id("spiffe://a_b-c.d1/ns/A.b_c-1/sa/x").is_ok());
    for bad in [
        "",
        "spiffe://",
        "spiffe:///ns/a/sa/b",
        "SPIFFE://cluster.local/ns/a/sa/b",
        "https://cluster.local/ns/a/sa/b",
        "spiffe:/cluster.local/ns/a/sa/b",
        "spiffe://Cluster.local/ns/a/sa/b",
        "spiffe://user@cluster.local/ns/a/sa/b",
        "spiffe://cluster.local:443/ns/a/sa/b",
        "spiffe://cluster.local/ns/a/sa/b/",
        "spiffe://cluster.local//ns/a/sa/b",
        "spiffe://cluster.local/ns//sa/b",
        "spiffe://cluster.local/ns/a/sa/../b",
        "spiffe://cluster.local/ns/a/sa/..",
        "spiffe://cluster.local/ns/./sa/b",
        "spiffe://cluster.local/ns/a/sa/b?x=1",
        "spiffe://cluster.local/ns/a/sa/b#x",
        "spiffe://cluster.local/ns/a/sa/b%2f",
        "spiffe://cluster.local/ns/a/sa/b\"",
        "spiffe://cluster.local/ns/a/sa/b'",
        "spiffe://cluster.local/ns/a/sa/b;URI=spiffe://x",
        "spiffe://cluster.local/ns/a/sa/b,By=x",
        "spiffe://cluster.local/ns/a/sa/b\0",
        "spiffe://cluster.local/ns/a/sa/b ",
        " spiffe://cluster.local/ns/a/sa/b",
        "spiffe://cluster.local/ns/a/sa/é",
        "spiffe://clüster/ns/a/sa/b",
    ] {
        assert!(matches!(parse_id(bad), Err(IdError::Invalid(_))), "{bad:?}: {:?}", parse_id(bad));
    }
    for other in [
        "spiffe://cluster.local",
        "spiffe://cluster.local/ns/a/sa",
        "spiffe://cluster.local/ns/a/sa/b/c",
        "spiffe://cluster.local/NS/a/sa/b",
        "spiffe://cluster.local/workload",
    ] {
        assert_eq!(parse_id(other), Err(IdError::NotAWorkload), "{other}");
    }
    let long = |bytes: usize| format!("spiffe://cluster.local/ns/a/sa/{}", "b".repeat(bytes));
    assert!(parse_id(&long(2048 - "spiffe://cluster.local/ns/a/sa/".len())).is_ok());
    assert!(parse_id(&long(2048)).is_err());
    assert!(parse_id(&format!("spiffe://{}/ns/a/sa/b", "d".repeat(256))).is_err());
}

#[test]
fn odd_characters_in_a_certificate_are_refused() {
    let mesh = Mesh::new();
    for odd in ["\"", "?x", "%41", "//x", "/../x", "/", "/..", " ", "'", ";", ",", "\\", "\u{7f}"] {
        let id = format!("{ID}{odd}");
        assert_eq!(mesh.refuses(|leaf| leaf.uris = vec![id.clone()]), "invalid_spiffe_id", "{id:?}");
    }
}

#[test]
fn the_header_tells_who_the_client_is() {
    let mesh = Mesh::new();
    let mut request = OddRequest::workload(ID);
    request.dns = vec!["a.example".to_owned(), "b.example".to_owned()];
    let leaf = mesh.root.issue_odd(&request).unwrap();
    let peer = check(&mesh.bundles, &leaf).unwrap();
    let by = parse_id("spiffe://cluster.local/ns/a/sa/b").unwrap();
    let text = forwarded_client_cert(&by, leaf.certificate_der(), &peer).unwrap();
    let mut parts = text.split(';');
    assert_eq!(parts.next(), Some("By=spiffe://cluster.local/ns/a/sa/b"));
    let hash = parts.next().unwrap().strip_prefix("Hash=").unwrap();
    assert!(hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()), "{text}");
    let rest: Vec<_> = parts.collect();
    let uri = format!("URI={ID}");
    assert_eq!(rest, ["Subject=\"CN=odd\"", uri.as_str(), "DNS=a.example", "DNS=b.example"]);
}
