//! The authority when clocks are wrong and folders are not ours alone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    task::{Context, Waker},
};

use tempfile::TempDir;

use super::*;
use crate::spiffe::{TrustBundles, parse_id};

const ID: &str = "spiffe://cluster.local/ns/datamesh/sa/fhir-server";
const DAY: i64 = 86_400;

fn authority(folder: &Path, now: i64) -> Authority {
    let settings = EmbeddedCaSettings {
        folder: folder.to_owned(),
        leaf_seconds: 3_600,
        intermediate_seconds: 86_400,
        root_seconds: 864_000,
        overlap_seconds: 60,
    };
    Authority::new(settings, "cluster.local", Clock::Fixed(now))
}

/// Looks at its folder and signs, as of a moment; peers of that moment must take what comes of it.
fn signs(authority: &mut Authority, now: i64) {
    authority.clock = Clock::Fixed(now);
    let known = authority.known().unwrap();
    let mut trust = TrustBundles::new(0);
    for (domain, bundle) in known.domains {
        trust = trust.with_domain(&domain, bundle).unwrap();
    }
    let id = parse_id(ID).unwrap();
    let material = authority.issue(&id).unwrap();
    let svid = Svid::new(&id, material, &trust, now).unwrap();
    assert!(svid.not_after() >= now + 3_600, "of full life");
}

fn roots(folder: &TempDir) -> usize {
    let files = fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "crt")).count()
}

/// A machine without a battery begins in another century.
#[test]
fn a_clock_that_was_wrong_is_no_end_of_the_authority() {
    let now = Clock::System.now();
    for wrong in [now + 3_650 * DAY, now - 3_650 * DAY, now + 15 * DAY] {
        let folder = tempfile::tempdir().unwrap();
        let mut authority = authority(folder.path(), now);
        signs(&mut authority, wrong);
        signs(&mut authority, now);
        signs(&mut authority, now + 60);
    }
}

/// Peers that know it need not learn of another.
#[test]
fn a_clock_that_is_ahead_for_a_moment_removes_no_root() {
    let now = Clock::System.now();
    let folder = tempfile::tempdir().unwrap();
    let mut authority = authority(folder.path(), now);
    signs(&mut authority, now);
    let before = authority.state.lock().unwrap().roots.signing(now, 60).unwrap().certificate.clone();
    signs(&mut authority, now + 15 * DAY);
    assert_eq!(roots(&folder), 2);
    signs(&mut authority, now);
    let after = authority.state.lock().unwrap().roots.signing(now, 60).unwrap().certificate.clone();
    assert_eq!(before, after);
    assert_eq!(roots(&folder), 2);
    // Far beyond its end it goes.
    signs(&mut authority, now + 3_650 * DAY);
    assert_eq!(roots(&folder), 1);
}

/// Its key could be anybody's, and with it every name of the mesh.
#[test]
fn a_root_that_others_may_have_put_there_is_not_trusted() {
    let now = Clock::System.now();
    let folder = tempfile::tempdir().unwrap();
    let mut authority = authority(folder.path(), now);
    signs(&mut authority, now);
    let planted = folder.path().join("root-1.crt");
    fs::write(&planted, certs::Authority::mint("intruder").unwrap().certificate_pem()).unwrap();
    let refused = |authority: &Authority, why: &str| {
        let Err(error) = authority.known() else { panic!("it is trusted") };
        assert!(error.to_string().contains(why) && error.to_string().contains("root-1.crt"), "{error}");
    };
    for mode in [0o646, 0o664] {
        fs::set_permissions(&planted, fs::Permissions::from_mode(mode)).unwrap();
        refused(&authority, "others may change it");
    }
    fs::set_permissions(&planted, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(authority.known().is_ok(), "our own is taken");
    // Only root may give a file away.
    if chown(&planted, Some(65_534), None).is_ok() && rustix::process::geteuid().is_root() {
        refused(&authority, "another user's");
    }
}

/// Looks hold the authority while they read its folder, which may be a network's.
#[tokio::test(flavor = "current_thread")]
async fn an_authority_that_is_held_up_holds_up_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let supplier = EmbeddedCa(Arc::new(authority(folder.path(), Clock::System.now())));
    supplier.known().unwrap();
    let id = parse_id(ID).unwrap();
    let held = Arc::clone(&supplier.0);
    let (taken, take) = std::sync::mpsc::channel();
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let holder = thread::spawn(move || {
        let _state = held.state.lock().unwrap();
        taken.send(()).unwrap();
        // Until the test is over, or has had a minute too much.
        let _ = wait.recv_timeout(Duration::from_secs(60));
    });
    take.recv().unwrap();
    let mut asked = supplier.supply(Ask { id: &id, held: None });
    assert!(asked.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    done.send(()).unwrap();
    assert!(asked.await.unwrap().is_some());
    holder.join().unwrap();
}
