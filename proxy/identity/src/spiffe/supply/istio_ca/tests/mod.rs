#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod authority;
mod doubts;

use std::{fs, sync::Arc, time::Duration};

use policy::SpiffeId;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::super::{Handle, Supply, Svid};
use crate::{
    Clock,
    spiffe::{CertificateSettings, parse_id},
};
use authority::{Istiod, Mood};

const ID: &str = "spiffe://cluster.local/ns/datamesh/sa/fhir-server";
const OTHER: &str = "spiffe://cluster.local/ns/datamesh/sa/other";
/// A slow machine is allowed for.
const SOON: Duration = Duration::from_secs(30);
const PATIENT_MS: u64 = 600_000;

fn id() -> SpiffeId {
    parse_id(ID).unwrap()
}

fn settings(istiod: &Istiod, timeout_ms: u64) -> CertificateSettings {
    CertificateSettings {
        istio_ca: Some(istiod.settings(timeout_ms)),
        retry_min_ms: 100,
        retry_max_ms: 200,
        ..CertificateSettings::default()
    }
}

fn start(settings: CertificateSettings) -> Arc<Supply> {
    Supply::start(settings, ("cluster.local", &[]), Clock::System, CancellationToken::new()).unwrap()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < SOON, "not within {SOON:?}: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

async fn svid_that(handle: &Handle, what: &str, mut holds: impl FnMut(&Svid) -> bool) -> Arc<Svid> {
    let held = || handle.svid().borrow().clone();
    until(what, || held().is_some_and(|svid| holds(&svid))).await;
    held().unwrap()
}

/// Waits for a problem of the one workload that says this.
async fn problem(supply: &Supply, part: &str) {
    let said = || supply.status().first().and_then(|one| one.problem.clone());
    let began = Instant::now();
    while !said().is_some_and(|said| said.contains(part)) {
        assert!(began.elapsed() < SOON, "expected {part:?}: {:?}", said());
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn it_is_asked_as_ztunnel_asks_and_its_roots_are_trusted() {
    let istiod = Istiod::start(Mood::Good).await;
    let supply = start(settings(&istiod, PATIENT_MS));
    let handle = supply.workload(&id());
    let svid = svid_that(&handle, "a certificate", |_| true).await;
    assert_eq!(svid.id(), &id());
    assert_eq!(svid.key().cert.len(), 2, "leaf and intermediate, without the root");
    let heard = istiod.heard();
    let heard = heard.first().unwrap();
    assert_eq!(heard.bearer, "Bearer first");
    assert_eq!(heard.cluster, "Kubernetes");
    assert_eq!(heard.impersonated.as_deref(), Some(ID));
    assert_eq!(heard.names, [ID], "the only name of the request");
    assert_eq!(heard.seconds, 86_400);
    assert_eq!(heard.server_name.as_deref(), Some("istiod.istio-system.svc"));
    let trust = supply.trust().borrow().clone();
    let roots: Vec<_> = trust.bundle("cluster.local").unwrap().certificates().cloned().collect();
    assert_eq!(roots, [istiod.root()]);
    let status = supply.status();
    assert!(status[0].valid && status[0].failures == 0 && status[0].problem.is_none(), "{status:?}");
}

#[tokio::test]
async fn two_workloads_have_two_keys_and_one_connection() {
    let istiod = Istiod::start(Mood::Good).await;
    let supply = start(settings(&istiod, PATIENT_MS));
    let [one, two] = [ID, OTHER].map(|id| supply.workload(&parse_id(id).unwrap()));
    let one = svid_that(&one, "the one", |_| true).await;
    let two = svid_that(&two, "the other", |_| true).await;
    assert_ne!(one.key().cert[0], two.key().cert[0]);
    assert_eq!((two.id().to_string().as_str(), istiod.connections()), (OTHER, 1));
    let mut settings = settings(&istiod, PATIENT_MS);
    settings.istio_ca.as_mut().unwrap().impersonate = false;
    let supply = start(settings);
    let handle = supply.workload(&id());
    svid_that(&handle, "its own", |_| true).await;
    assert_eq!(istiod.heard().last().unwrap().impersonated, None);
}

#[tokio::test]
async fn the_token_is_read_each_time() {
    let istiod = Istiod::start(Mood::Refuse).await;
    let supply = start(settings(&istiod, PATIENT_MS));
    let handle = supply.workload(&id());
    problem(&supply, "Unauthenticated: no\\u{7}thing of mine").await;
    fs::write(istiod.token_file(), "second\n").unwrap();
    until("the second token", || istiod.heard().last().is_some_and(|heard| heard.bearer == "Bearer second"))
        .await;
    fs::write(istiod.token_file(), " \n").unwrap();
    problem(&supply, "is empty").await;
    fs::remove_file(istiod.token_file()).unwrap();
    problem(&supply, "No such file").await;
    fs::write(istiod.token_file(), "third").unwrap();
    istiod.is(Mood::Good);
    svid_that(&handle, "a certificate", |_| true).await;
    until("no problem", || supply.status()[0].problem.is_none()).await;
}

#[tokio::test]
async fn answers_that_cannot_be_used_are_refused_for_their_reason_and_teach_no_root() {
    let istiod = Istiod::start(Mood::Refuse).await;
    let supply = start(settings(&istiod, PATIENT_MS));
    let handle = supply.workload(&id());
    problem(&supply, "Unauthenticated").await;
    for (mood, reason) in [
        (Mood::Empty, "its chain is empty"),
        (Mood::Garbage, "it is not PEM"),
        (Mood::NotDer, "cannot be used"),
        (Mood::LeafOnly, "its chain names no root"),
        (Mood::WrongId, "is another's"),
        (Mood::TwoNames, "cannot be used: "),
        (Mood::OtherKey, "the key of"),
        (Mood::OthersRoot, "cannot be used: "),
        (Mood::WithoutIntermediate, "cannot be used: "),
        (Mood::RootFirst, "cannot be used: "),
        (Mood::Huge, "OutOfRange"),
        (Mood::TooMany, "more than 64 certificates"),
    ] {
        istiod.is(mood);
        problem(&supply, reason).await;
        assert!(handle.svid().borrow().is_none(), "{mood:?}");
        let trust = supply.trust().borrow().clone();
        assert!(trust.bundle("cluster.local").is_none(), "{mood:?} taught a root");
        // The next reason may sound the same.
        istiod.is(Mood::Refuse);
        problem(&supply, "Unauthenticated").await;
    }
    istiod.is(Mood::Good);
    svid_that(&handle, "a certificate", |_| true).await;
    until("no problem", || supply.status()[0].problem.is_none()).await;
}

#[tokio::test]
async fn those_between_in_any_order_are_put_in_theirs() {
    let istiod = Istiod::start(Mood::Unordered).await;
    let supply = start(settings(&istiod, PATIENT_MS));
    let handle = supply.workload(&id());
    let svid = svid_that(&handle, "a certificate", |_| true).await;
    assert_eq!(svid.key().cert[1..], istiod.intermediates(), "no stranger, each signed by the next");
}

#[tokio::test]
async fn a_root_in_the_chain_is_not_sent_to_peers() {
    let istiod = Istiod::start(Mood::RootTwice).await;
    let supply = start(settings(&istiod, PATIENT_MS));
    let handle = supply.workload(&id());
    let svid = svid_that(&handle, "a certificate", |_| true).await;
    assert_eq!(svid.key().cert[1..], istiod.intermediates()[1..], "the one that signed the leaf");
    let trust = supply.trust().borrow().clone();
    let roots: Vec<_> = trust.bundle("cluster.local").unwrap().certificates().cloned().collect();
    assert_eq!(roots, [istiod.root()]);
}

#[tokio::test]
async fn an_authority_that_says_nothing_is_given_up() {
    let istiod = Istiod::start(Mood::Hang).await;
    let supply = start(settings(&istiod, 300));
    let handle = supply.workload(&id());
    problem(&supply, "no answer within 300ms").await;
    assert!(handle.svid().borrow().is_none());
}

#[tokio::test]
async fn who_is_not_the_authority_sees_no_token() {
    let istiod = Istiod::start(Mood::Good).await;
    let mut other = settings(&istiod, PATIENT_MS);
    other.istio_ca.as_mut().unwrap().server_name = Some("another.istio-system.svc".to_owned());
    let supply = start(other);
    let handle = supply.workload(&id());
    problem(&supply, "not valid for name").await;
    let mut other = settings(&istiod, PATIENT_MS);
    let stranger =
        istiod.write("stranger.pem", &certs::Authority::mint("stranger").unwrap().certificate_pem());
    other.istio_ca.as_mut().unwrap().ca_file = stranger;
    let strangers = start(other);
    let strange = strangers.workload(&id());
    problem(&strangers, "UnknownIssuer").await;
    assert!(handle.svid().borrow().is_none() && strange.svid().borrow().is_none());
    assert!(istiod.heard().is_empty());
}

#[tokio::test]
async fn an_authority_that_is_down_at_start_or_later_is_told_of_and_takes_nothing_away() {
    let mut istiod = Istiod::start(Mood::Short).await;
    istiod.die().await;
    let supply = start(settings(&istiod, PATIENT_MS));
    let handle = supply.workload(&id());
    problem(&supply, "the authority at").await;
    until("failures are counted", || supply.status()[0].failures > 2).await;
    istiod.run().await;
    let first = svid_that(&handle, "the first", |_| true).await;
    until("no problem", || supply.status()[0].problem.is_none()).await;
    let second = svid_that(&handle, "a renewal", |svid| svid.key().cert != first.key().cert).await;
    istiod.is(Mood::Refuse);
    problem(&supply, "Unauthenticated").await;
    let status = supply.status();
    assert!(status[0].valid || second.not_after() < Clock::System.now(), "told before its end: {status:?}");
    istiod.is(Mood::Good);
    svid_that(&handle, "one more", |svid| svid.not_after() > second.not_after() + 60).await;
    until("no problem", || supply.status()[0].problem.is_none()).await;
}

#[tokio::test]
async fn workloads_that_wait_for_one_connection_share_its_failure() {
    let istiod = Istiod::start(Mood::Good).await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = settings(&istiod, 2_000);
    settings.istio_ca.as_mut().unwrap().address = silent.local_addr().unwrap().to_string();
    (settings.retry_min_ms, settings.retry_max_ms) = (PATIENT_MS, PATIENT_MS);
    let supply = start(settings);
    let names = (0..20).map(|number| format!("spiffe://cluster.local/ns/datamesh/sa/w{number}"));
    let _handles: Vec<_> = names.map(|id| supply.workload(&parse_id(&id).unwrap())).collect();
    until("all were told", || supply.status().iter().all(|one| one.failures == 1)).await;
    assert!(supply.status()[0].problem.as_ref().unwrap().contains("no connection within 2s"));
    let mut attempts = 0;
    while tokio::time::timeout(Duration::from_millis(200), silent.accept()).await.is_ok() {
        attempts += 1;
    }
    assert!((1..10).contains(&attempts), "{attempts}");
}

#[tokio::test]
async fn roots_rotate_as_the_answers_have_them() {
    let istiod = Istiod::start(Mood::Short).await;
    let supply = start(settings(&istiod, PATIENT_MS));
    let handle = supply.workload(&id());
    svid_that(&handle, "the first", |_| true).await;
    let roots = |supply: &Supply| -> Vec<_> {
        let trust = supply.trust().borrow().clone();
        trust.bundle("cluster.local").unwrap().certificates().cloned().collect()
    };
    assert_eq!(roots(&supply), [istiod.root()]);
    istiod.is(Mood::TwoRoots);
    until("both", || roots(&supply).len() == 2).await;
    istiod.is(Mood::NewRoot);
    until("the new one", || roots(&supply) == [istiod.new_root()]).await;
    assert_eq!(supply.status()[0].failures, 0, "{:?}", supply.status());
}
