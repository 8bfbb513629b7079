//! What an agent says is taken up at once, and holds when it says nothing any more.

use certs::{Authority, LeafRequest, OddRequest, Validity};
use rustls_pki_types::{UnixTime, pem::PemObject};
use tonic::Code;

use super::{
    agent::{Agent, Answer, Says, packed, svid},
    *,
};
use crate::spiffe::{PeerError, Role};

fn answer(root: &Authority) -> Says {
    Answer::default().with(svid(OTHER, root)).with(svid(ID, root)).says()
}

#[tokio::test]
async fn the_agent_is_asked_as_the_contract_has_it_and_the_right_svid_is_taken() {
    let root = Authority::mint("root").unwrap();
    let agent = Agent::start(answer(&root));
    let supply = start(&agent, NEVER_MS, NEVER_MS);
    let handle = supply.workload(&id());
    let svid = svid_that(&handle, "a certificate", |_| true).await;
    assert_eq!(svid.id(), &id());
    let heard = agent.heard();
    assert_eq!(heard.len(), 1, "one stream for all");
    assert_eq!(heard[0].get("workload.spiffe.io").unwrap(), "true");
    let other = supply.workload(&parse_id(OTHER).unwrap());
    svid_that(&other, "another workload's", |svid| svid.id().to_string() == OTHER).await;
    assert_eq!(agent.heard().len(), 1);
    let status = supply.status();
    assert!(status.iter().all(|one| one.valid && one.problem.is_none() && one.failures == 0), "{status:?}");
    assert_eq!(supply.trust_status().problem, None);
}

#[tokio::test]
async fn a_push_is_taken_up_at_once_and_changes_no_trust_where_roots_stay() {
    let root = Authority::mint("root").unwrap();
    let agent = Agent::start(answer(&root));
    let supply = start(&agent, NEVER_MS, NEVER_MS);
    let handle = supply.workload(&id());
    let first = svid_that(&handle, "the first", |_| true).await;
    let version = supply.trust().borrow().version();
    agent.says(answer(&root));
    svid_that(&handle, "the second", |svid| svid.key().cert != first.key().cert).await;
    assert_eq!(supply.trust().borrow().version(), version, "no connection has to be judged again");
    assert_eq!(supply.status()[0].renewals, 2);
}

#[tokio::test]
async fn a_new_root_comes_with_the_certificate_that_it_signed() {
    let [old, new] = ["old", "new"].map(|name| Authority::mint(name).unwrap());
    let agent = Agent::start(answer(&old));
    let supply = start(&agent, NEVER_MS, NEVER_MS);
    let handle = supply.workload(&id());
    let first = svid_that(&handle, "the first", |_| true).await;
    let leaf = new.issue(&LeafRequest::for_workload(ID)).unwrap();
    agent.says(Answer::default().with(packed(ID, &leaf, &[&old, &new])).says());
    svid_that(&handle, "one of the new root", |svid| svid.key().cert != first.key().cert).await;
    let trust = supply.trust().borrow().clone();
    assert_eq!(trust.bundle("cluster.local").unwrap().certificates().count(), 2);
    agent.says(Answer::default().with(packed(ID, &leaf, &[&new])).says());
    until("the old root is gone", || supply.trust_status().domains[0].1 == 1).await;
    assert_eq!(supply.status()[0].problem, None);
}

#[tokio::test]
async fn federated_roots_vouch_for_their_domain_and_lists_revoke() {
    let [root, partner] = ["root", "partner"].map(|name| Authority::mint(name).unwrap());
    let agent = Agent::start(
        Answer::default().with(svid(ID, &root)).federated("spiffe://partner.example", &[&partner]).says(),
    );
    let supply = start(&agent, NEVER_MS, NEVER_MS);
    let handle = supply.workload(&id());
    svid_that(&handle, "a certificate", |_| true).await;
    let caller = "spiffe://partner.example/ns/x/sa/caller";
    let leaf = partner.issue_odd(&OddRequest::workload(caller)).unwrap();
    let check = |supply: &Supply| {
        let trust = supply.trust().borrow().clone();
        let chain = leaf.chain_der();
        trust.verify(&chain[0], &chain[1..], Role::Client, UnixTime::now()).map(|peer| peer.id.to_string())
    };
    assert_eq!(check(&supply), Ok(caller.to_owned()));
    let list = partner.revocation_list(&[&leaf], certs::Validity::from_now().unwrap()).unwrap();
    let list = rustls_pki_types::CertificateRevocationListDer::from_pem_slice(list.as_bytes()).unwrap();
    let mut with_list =
        Answer::default().with(svid(ID, &root)).federated("spiffe://partner.example", &[&partner]);
    with_list.crl = vec![list.to_vec()];
    agent.says(with_list.says());
    until("revoked", || check(&supply) == Err(PeerError::Revoked)).await;
    agent.says(answer(&root));
    until("trusted no longer", || check(&supply) == Err(PeerError::UnknownTrustDomain)).await;
}

#[tokio::test]
async fn an_agent_that_dies_is_told_of_takes_nothing_away_and_may_come_back() {
    let root = Authority::mint("root").unwrap();
    let mut agent = Agent::start(answer(&root));
    let supply = start(&agent, 100, NEVER_MS);
    let handle = supply.workload(&id());
    let first = svid_that(&handle, "the first", |_| true).await;
    agent.die().await;
    problem(&supply, "the Workload API at").await;
    until("more failures", || supply.status()[0].failures > 2).await;
    until("told at the trust too", || supply.trust_status().problem.is_some()).await;
    assert!(supply.status()[0].valid && !supply.status()[0].late, "{:?}", supply.status());
    let late = supply.workload(&parse_id(OTHER).unwrap());
    svid_that(&late, "what was given before the agent died", |_| true).await;
    agent.says(answer(&root));
    agent.run();
    svid_that(&handle, "a new one", |svid| svid.key().cert != first.key().cert).await;
    until("no problem", || supply.status().iter().all(|one| one.problem.is_none())).await;
    until("trust without problem", || supply.trust_status().problem.is_none()).await;
}

#[tokio::test]
async fn an_agent_that_is_not_there_at_start_is_told_of_and_waited_for() {
    let root = Authority::mint("root").unwrap();
    let mut agent = Agent::absent(answer(&root));
    let supply = start(&agent, 100, NEVER_MS);
    let handle = supply.workload(&id());
    problem(&supply, "no connection").await;
    until("failures are counted", || supply.status()[0].failures > 2).await;
    assert!(!supply.status()[0].valid);
    agent.run();
    svid_that(&handle, "a certificate", |_| true).await;
    until("no problem", || supply.status()[0].problem.is_none()).await;
}

#[tokio::test]
async fn an_entry_that_vanishes_is_told_of_and_its_certificate_stays_for_its_life() {
    let root = Authority::mint("root").unwrap();
    let agent = Agent::start(answer(&root));
    let supply = start(&agent, 100, NEVER_MS);
    let handle = supply.workload(&id());
    let first = svid_that(&handle, "the first", |_| true).await;
    agent.says(Answer::default().with(svid(OTHER, &root)).says());
    problem(&supply, "there is no certificate for").await;
    assert!(supply.status()[0].valid);
    agent.says(Says::Refusal(Code::PermissionDenied));
    problem(&supply, "PermissionDenied: as told\\n").await;
    assert!(supply.status()[0].valid);
    assert!(Arc::ptr_eq(&first, &handle.svid().borrow().clone().unwrap()));
    agent.says(answer(&root));
    svid_that(&handle, "a new one", |svid| svid.key().cert != first.key().cert).await;
    until("no problem", || supply.status()[0].problem.is_none()).await;
}

#[tokio::test]
async fn a_certificate_that_the_agent_forgets_to_renew_is_told_of() {
    let root = Authority::mint("root").unwrap();
    let now = u64::try_from(Clock::System.now()).unwrap();
    let short = OddRequest {
        validity: Some(Validity::starting(now, Duration::from_secs(15)).unwrap()),
        ..OddRequest::workload(ID)
    };
    let short = root.issue_odd(&short).unwrap();
    let agent = Agent::start(Answer::default().with(packed(ID, &short, &[&root])).says());
    let supply = start(&agent, NEVER_MS, NEVER_MS);
    let handle = supply.workload(&id());
    svid_that(&handle, "a short one", |_| true).await;
    problem(&supply, "it should have been renewed by now").await;
    assert_eq!(supply.status()[0].failures, 1, "once, however long it lasts");
    agent.says(answer(&root));
    until("no problem", || supply.status()[0].problem.is_none()).await;
}

#[tokio::test]
async fn a_stream_that_ends_is_opened_again() {
    let root = Authority::mint("root").unwrap();
    let agent = Agent::start(answer(&root));
    let supply = start(&agent, 100, NEVER_MS);
    let handle = supply.workload(&id());
    svid_that(&handle, "the first", |_| true).await;
    agent.says(Says::End);
    problem(&supply, "the stream ended").await;
    until("asked again", || agent.heard().len() > 2).await;
    agent.says(answer(&root));
    until("no problem", || supply.status()[0].problem.is_none()).await;
}
