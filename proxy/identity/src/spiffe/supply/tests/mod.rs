//! Suppliers over real files and time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    time::Duration,
};

use certs::{Authority, LeafRequest, OddRequest, Validity};
use policy::SpiffeId;
use tokio::time::{Instant, sleep};

use super::*;
use crate::spiffe::{CertificateFolder, EmbeddedCaSettings, Role, TrustSettings, parse_id};

const ID: &str = "spiffe://cluster.local/ns/datamesh/sa/fhir-server";
/// A slow machine is allowed for.
const SOON: Duration = Duration::from_secs(20);

fn id() -> SpiffeId {
    parse_id(ID).unwrap()
}

fn embedded(folder: &Path) -> CertificateSettings {
    let folder = folder.join("ca");
    let embedded = EmbeddedCaSettings {
        folder,
        leaf_seconds: 3_600,
        intermediate_seconds: 86_400,
        root_seconds: 864_000,
        overlap_seconds: 60,
    };
    CertificateSettings { embedded: Some(embedded), ..CertificateSettings::default() }
}

fn start(settings: CertificateSettings) -> Result<Arc<Supply>, SupplyError> {
    Supply::start(settings, ("cluster.local", &[]), Clock::System, CancellationToken::new())
}

async fn svid_that(handle: &Handle, what: &str, mut holds: impl FnMut(&Svid) -> bool) -> Arc<Svid> {
    let began = Instant::now();
    loop {
        if let Some(svid) = handle.svid().borrow().clone().filter(|svid| holds(svid)) {
            return svid;
        }
        assert!(began.elapsed() < SOON, "not within {SOON:?}: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_embedded_authority_issues_what_peers_take_and_keeps_its_root() {
    let folder = tempfile::tempdir().unwrap();
    let supply = start(embedded(folder.path())).unwrap();
    let handle = supply.workload(&id());
    let svid = svid_that(&handle, "a certificate", |_| true).await;
    assert_eq!(svid.id().to_string(), ID);
    assert_eq!(svid.key().cert.len(), 2, "leaf and intermediate");
    assert!(Arc::ptr_eq(&handle, &supply.workload(&id())), "one handle for one identity");
    let mut keys = 0;
    for entry in fs::read_dir(folder.path().join("ca")).unwrap() {
        let entry = entry.unwrap();
        if entry.path().extension().is_some_and(|extension| extension == "key") {
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600);
            keys += 1;
        }
    }
    assert_eq!(keys, 1, "the root's; no other key is written");
    let bundle = fs::read(folder.path().join("ca/bundle.pem")).unwrap();
    let again = start(embedded(folder.path())).unwrap();
    assert_eq!(fs::read(folder.path().join("ca/bundle.pem")).unwrap(), bundle, "the root outlives us");
    let trust = again.trust().borrow().clone();
    let (leaf, issuers) = svid.key().cert.split_first().unwrap();
    let now = rustls_pki_types::UnixTime::now();
    assert!(trust.verify(leaf, issuers, crate::spiffe::Role::Client, now).is_ok());
    let status = supply.status();
    assert!(status[0].valid && !status[0].late && status[0].renewals == 1, "{status:?}");
}

/// Each took the other's place under the same name, and its certificate no longer fitted its key.
#[tokio::test(flavor = "multi_thread")]
async fn proxies_that_start_together_on_an_empty_folder_share_one_root() {
    for _ in 0..20 {
        let folder = tempfile::tempdir().unwrap();
        // Of one that was ended before.
        fs::create_dir(folder.path().join("ca")).unwrap();
        fs::write(folder.path().join("ca/root-1.key.0.new"), "half a key").unwrap();
        let settings = embedded(folder.path());
        let starts: Vec<_> = (0..6)
            .map(|_| {
                let settings = settings.clone();
                tokio::task::spawn_blocking(move || start(settings).unwrap())
            })
            .collect();
        let mut bundles = Vec::new();
        for supply in starts {
            let supply = supply.await.unwrap();
            let handle = supply.workload(&id());
            svid_that(&handle, "a certificate that holds by the shared root", |_| true).await;
            let trust = supply.trust().borrow().clone();
            bundles.push(trust.bundle("cluster.local").unwrap().clone());
        }
        assert!(bundles.iter().all(|bundle| *bundle == bundles[0] && bundle.certificates().count() == 1));
        let files = fs::read_dir(folder.path().join("ca")).unwrap();
        let mut names: Vec<_> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| !name.starts_with("root-"));
        names.sort();
        assert_eq!(names, [".lock", "bundle.pem"], "nothing is left lying");
    }
}

#[tokio::test]
async fn a_root_key_that_others_may_read_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    drop(start(embedded(folder.path())).unwrap());
    for entry in fs::read_dir(folder.path().join("ca")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "key") {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        }
    }
    let supply = start(embedded(folder.path())).unwrap();
    let handle = supply.workload(&id());
    let began = Instant::now();
    while supply.status()[0].failures == 0 {
        assert!(began.elapsed() < SOON);
        sleep(Duration::from_millis(20)).await;
    }
    let problem = supply.status()[0].problem.clone().unwrap();
    assert!(problem.contains("0600"), "{problem}");
    assert!(handle.svid().borrow().is_none());
}

#[tokio::test]
async fn certificates_are_renewed_in_time_and_roots_rotate_with_overlap() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = embedded(folder.path());
    if let Some(embedded) = &mut settings.embedded {
        embedded.leaf_seconds = 6;
        embedded.intermediate_seconds = 12;
        embedded.root_seconds = 30;
        embedded.overlap_seconds = 2;
    }
    let supply = start(settings).unwrap();
    let handle = supply.workload(&id());
    let first = svid_that(&handle, "the first", |_| true).await;
    let renewed = svid_that(&handle, "a renewal", |svid| svid.key().cert != first.key().cert).await;
    assert!(renewed.not_after() > first.not_after());
    let status = supply.status();
    assert!(status[0].valid && status[0].failures == 0, "{status:?}");
    // A second root beside the first, before the first has expired.
    let began = Instant::now();
    while supply.trust_status().domains[0].1 < 2 {
        assert!(began.elapsed() < SOON * 3, "{:?}", supply.trust_status());
        assert!(supply.status()[0].valid, "{:?}", supply.status());
        sleep(Duration::from_millis(50)).await;
    }
    let trust = supply.trust().borrow().clone();
    let (leaf, issuers) = renewed.key().cert.split_first().unwrap();
    let at = rustls_pki_types::UnixTime::since_unix_epoch(Duration::from_secs(
        u64::try_from(renewed.not_after() - 1).unwrap(),
    ));
    assert!(trust.verify(leaf, issuers, crate::spiffe::Role::Client, at).is_ok(), "old leaves hold on");
}

#[test]
fn renewal_is_before_two_thirds_of_the_life_and_not_for_all_at_once() {
    let root = Authority::mint("root").unwrap();
    let bundle = crate::spiffe::Bundle::from_roots(vec![root.certificate_der()]).unwrap();
    let trust = TrustBundles::new(1).with_domain("cluster.local", bundle).unwrap();
    let leaf = root.issue(&LeafRequest::for_workload(ID)).unwrap();
    let now = Clock::System.now();
    let material = Material { chain: leaf.chain_der(), key: leaf.key_der() };
    let svid = Svid::new(&id(), material, &trust, now).unwrap();
    let life = svid.not_after() - now;
    let [early, late] = [0.0, 1.0].map(|dice| svid.renew_at(dice) - now);
    assert!(early >= life / 2 && late * 3 < life * 2 && late > early, "{early} {late} {life}");
    assert!(svid.is_ahead(now - 60) && !svid.is_ahead(now - 1) && !svid.is_ahead(now + life));
    let other = parse_id("spiffe://cluster.local/ns/datamesh/sa/other").unwrap();
    let material = Material { chain: leaf.chain_der(), key: leaf.key_der() };
    assert!(matches!(Svid::new(&other, material, &trust, now), Err(SupplyError::Foreign(..))));
    let another = root.issue(&LeafRequest::for_workload(ID)).unwrap();
    let material = Material { chain: leaf.chain_der(), key: another.key_der() };
    assert!(matches!(Svid::new(&id(), material, &trust, now), Err(SupplyError::Key(..))));
}

/// Hands out certificates that are over in a second.
struct Hasty {
    root: Authority,
    clock: Clock,
    asked: std::sync::atomic::AtomicUsize,
}

impl Supplier for Hasty {
    fn supply<'a>(&'a self, ask: Ask<'a>) -> BoxFuture<'a, Result<Option<Material>, SupplyError>> {
        self.asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let mut request = LeafRequest::for_workload(ask.id.to_string());
        let now = u64::try_from(self.clock.now()).unwrap();
        request.validity = Some(certs::Validity::starting(now, Duration::from_secs(1)).unwrap());
        let leaf = self.root.issue(&request).unwrap();
        Box::pin(async move {
            // A loop without a pause is found out, and not sat in.
            tokio::task::yield_now().await;
            Ok(Some(Material { chain: leaf.chain_der(), key: leaf.key_der() }))
        })
    }

    fn known(&self) -> Result<Known, SupplyError> {
        Known::own("cluster.local", vec![self.root.certificate_der()])
    }

    fn next(&self, _: &Svid) -> Next {
        Next::Renew
    }
}

#[tokio::test]
async fn who_hands_out_certificates_that_are_soon_over_is_not_asked_without_a_pause() {
    // It stands still, so that the certificate holds and no second passes.
    let clock = Clock::Fixed(Clock::System.now());
    let root = Authority::mint("root").unwrap();
    let supplier = Arc::new(Hasty { root, clock, asked: Default::default() });
    let settings = Arc::new(CertificateSettings::default());
    let trust = Trust::new(Arc::clone(&supplier) as _, Arc::clone(&settings), "cluster.local", &[]).unwrap();
    let stop = CancellationToken::new();
    let (handle, task) =
        handle::make(id(), Arc::clone(&supplier) as _, Arc::new(trust), (settings, supplier.clock), stop);
    tokio::spawn(task);
    svid_that(&handle, "a certificate", |_| true).await;
    sleep(Duration::from_millis(300)).await;
    assert_eq!(supplier.asked.load(std::sync::atomic::Ordering::SeqCst), 1);
}

/// A volume of Kubernetes: the files are links through `..data`, which is swapped in one step.
fn swap(folder: &Path, generation: u32, root: &Authority, id: &str) {
    let data = folder.join(format!("..{generation}"));
    root.issue(&LeafRequest::for_workload(id)).unwrap().write_to(&data, root).unwrap();
    fs::rename(data.join("ca.pem"), data.join("ca.crt")).unwrap();
    let link = folder.join("..data_tmp");
    symlink(format!("..{generation}"), &link).unwrap();
    fs::rename(link, folder.join("..data")).unwrap();
    for name in ["tls.crt", "tls.key", "ca.crt"] {
        let _ = symlink(format!("..data/{name}"), folder.join(name));
    }
}

#[tokio::test]
async fn files_that_change_are_taken_up_and_bad_ones_leave_the_old_in_service() {
    let folder = tempfile::tempdir().unwrap();
    let [old, new] = ["old", "new"].map(|name| Authority::mint(name).unwrap());
    swap(folder.path(), 1, &old, ID);
    let entry = CertificateFolder {
        service_account: "datamesh/fhir-server".to_owned(),
        folder: folder.path().to_owned(),
    };
    let settings = CertificateSettings { files: vec![entry], retry_max_ms: 1_000, ..Default::default() };
    let supply = start(settings).unwrap();
    let handle = supply.workload(&id());
    let first = svid_that(&handle, "the first", |_| true).await;
    swap(folder.path(), 2, &old, ID);
    let second = svid_that(&handle, "a renewed one", |svid| svid.key().cert != first.key().cert).await;
    swap(folder.path(), 3, &old, "spiffe://cluster.local/ns/datamesh/sa/other");
    let began = Instant::now();
    while supply.status()[0].problem.is_none() {
        assert!(began.elapsed() < SOON);
        sleep(Duration::from_millis(20)).await;
    }
    let status = supply.status();
    assert!(status[0].problem.as_ref().unwrap().contains("another's") && status[0].valid, "{status:?}");
    swap(folder.path(), 4, &new, ID);
    let third = svid_that(&handle, "one of a new root", |svid| svid.key().cert != second.key().cert).await;
    assert_eq!(third.id().to_string(), ID);
    assert!(supply.status()[0].problem.is_none(), "{:?}", supply.status());
    let unknown = supply.workload(&parse_id("spiffe://cluster.local/ns/datamesh/sa/unknown").unwrap());
    sleep(Duration::from_millis(300)).await;
    assert!(unknown.svid().borrow().is_none());
}

#[tokio::test]
async fn trust_files_are_read_again_and_broken_ones_leave_the_old_in_force() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("partner.pem");
    let mut settings = embedded(folder.path());
    settings.trust =
        vec![TrustSettings { domain: "partner.example".to_owned(), bundles: vec![file.clone()] }];
    assert!(matches!(start(settings.clone()), Err(SupplyError::File { .. })), "named and not there");
    fs::write(&file, Authority::mint("one").unwrap().certificate_pem()).unwrap();
    let supply = start(settings).unwrap();
    let mut trust = supply.trust();
    let before = trust.borrow_and_update().version();
    let two = Authority::mint("one").unwrap().certificate_pem()
        + &Authority::mint("two").unwrap().certificate_pem();
    fs::write(&file, two).unwrap();
    tokio::time::timeout(SOON, trust.changed()).await.unwrap().unwrap();
    let now = trust.borrow_and_update().clone();
    assert!(now.version() > before);
    assert_eq!(now.bundle("partner.example").unwrap().certificates().count(), 2);
    fs::write(&file, "broken").unwrap();
    let began = Instant::now();
    while supply.trust_status().problem.is_none() {
        assert!(began.elapsed() < SOON);
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(supply.trust().borrow().version(), now.version());
}

#[tokio::test]
async fn an_empty_file_is_no_revocation_list_and_one_that_was_emptied_keeps_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let [root, list] = ["root.pem", "ca-crl.pem"].map(|name| folder.path().join(name));
    let authority = Authority::mint("the mesh").unwrap();
    let leaf = authority.issue_odd(&OddRequest::workload(ID)).unwrap();
    let now = u64::try_from(Clock::System.now()).unwrap();
    let revoking = |whom: &[&certs::Leaf]| {
        authority.revocation_list(whom, Validity::between(now - 60, now + 3_600).unwrap()).unwrap()
    };
    fs::write(&root, authority.certificate_pem()).unwrap();
    fs::write(&list, "\n").unwrap();
    let mut settings = embedded(folder.path());
    settings.trust = vec![TrustSettings { domain: "cluster.local".to_owned(), bundles: vec![root] }];
    settings.crls = vec![list.clone()];
    // As Istio mounts it where nothing is revoked.
    let supply = start(settings).unwrap();
    let revoked = || {
        let chain = leaf.chain_der();
        let (leaf, issuers) = chain.split_first().unwrap();
        let trust = supply.trust().borrow().clone();
        trust
            .verify(leaf, issuers, Role::Client, rustls_pki_types::UnixTime::now())
            .is_err_and(|error| error.name() == "revoked")
    };
    let stands = || (revoked(), supply.trust_status().problem);
    assert_eq!(stands(), (false, None));
    let emptied = Some(format!("{}: emptied; its lists stay in force", list.display()));
    for (text, expected) in [
        (revoking(&[&leaf]), (true, None)),
        (String::new(), (true, emptied.clone())),
        (revoking(&[&leaf]), (true, None)),
        (" \n".to_owned(), (true, emptied)),
        (revoking(&[]), (false, None)),
    ] {
        fs::write(&list, text).unwrap();
        let began = Instant::now();
        while stands() != expected {
            assert!(began.elapsed() < SOON, "{:?} instead of {expected:?}", stands());
            sleep(Duration::from_millis(20)).await;
        }
    }
}
