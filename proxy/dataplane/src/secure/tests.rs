#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;

use super::*;

fn pair(name: &str) -> (String, String) {
    let pair = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    (pair.cert.pem(), pair.signing_key.serialize_pem())
}

#[test]
fn a_broken_pair_keeps_the_old_one_and_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let files = TlsFiles { certificate: folder.path().join("c"), key: folder.path().join("k") };
    assert!(matches!(Tls::load(files.clone()), Err(TlsError::Read { .. })));
    let (certificate, key) = pair("one");
    fs::write(&files.certificate, &certificate).unwrap();
    fs::write(&files.key, &key).unwrap();
    let tls = Tls::load(files.clone()).unwrap();
    tls.look();
    assert_eq!((tls.status().reloads, tls.status().problem), (0, None));
    let (_, other_key) = pair("two");
    fs::write(&files.key, &other_key).unwrap();
    tls.look();
    assert_eq!(tls.status().reloads, 0);
    assert!(tls.status().problem.is_some(), "key and certificate do not match");
    fs::remove_file(&files.key).unwrap();
    tls.look();
    assert!(tls.status().problem.unwrap().contains("/k"));
    let (certificate, key) = pair("three");
    fs::write(&files.certificate, &certificate).unwrap();
    fs::write(&files.key, &key).unwrap();
    tls.look();
    assert_eq!((tls.status().reloads, tls.status().problem), (1, None));
}
