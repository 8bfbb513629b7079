//! Answers that no agent should give: each refused for its reason, and no harm once a good one follows.

use certs::{Authority, LeafRequest, OddRequest};
use tonic::Code;

use super::{
    super::{super::remote::messages::X509Svid, MESSAGE_BYTES},
    agent::{Agent, Answer, Says, packed, svid},
    *,
};

/// An agent that says this first, and then what is right.
async fn refused(says: Says, reason: &str) {
    let agent = Agent::start(says);
    let supply = start(&agent, 100, NEVER_MS);
    let handle = supply.workload(&id());
    problem(&supply, reason).await;
    assert!(handle.svid().borrow().is_none(), "{reason}");
    let root = Authority::mint("good").unwrap();
    agent.says(Answer::default().with(svid(ID, &root)).says());
    svid_that(&handle, "the good one", |_| true).await;
    until("no problem", || supply.status()[0].problem.is_none()).await;
}

/// The right SVID, changed.
fn but(change: impl FnOnce(&mut X509Svid)) -> Says {
    let mut svid = svid(ID, &Authority::mint("root").unwrap());
    change(&mut svid);
    Answer::default().with(svid).says()
}

#[tokio::test]
async fn certificates_that_cannot_be_read() {
    refused(Answer::default().says(), "it holds no certificate").await;
    refused(but(|svid| svid.x509_svid.clear()), "its chain is empty").await;
    refused(but(|svid| svid.x509_svid = b"garbage".to_vec()), "its chain cannot be read").await;
    refused(but(|svid| svid.x509_svid.truncate(100)), "its chain cannot be read").await;
    refused(but(|svid| svid.bundle = b"garbage".to_vec()), "certificate 1 cannot be a root").await;
    refused(but(|svid| svid.bundle.clear()), "there is no certificate in it").await;
    refused(but(|svid| svid.x509_svid_key = b"garbage".to_vec()), "the key of").await;
    refused(but(|svid| svid.spiffe_id = "spiffe://cluster.local/ns/a//sa/b".to_owned()), "it names nobody")
        .await;
}

#[tokio::test]
async fn certificates_of_others() {
    let [root, another] = ["root", "another"].map(|name| Authority::mint(name).unwrap());
    let other = root.issue(&LeafRequest::for_workload(OTHER)).unwrap();
    refused(Answer::default().with(packed(ID, &other, &[&root])).says(), "is another's").await;
    let [one, two] = [0; 2].map(|_| root.issue(&LeafRequest::for_workload(ID)).unwrap());
    let mut mixed = packed(ID, &one, &[&root]);
    mixed.x509_svid_key = two.key_der().secret_der().to_vec();
    refused(Answer::default().with(mixed).says(), "the key of").await;
    refused(Answer::default().with(packed(ID, &one, &[&another])).says(), "cannot be used").await;
    let mut names = OddRequest::workload(ID);
    names.uris.push(OTHER.to_owned());
    let two_names = root.issue_odd(&names).unwrap();
    refused(Answer::default().with(packed(ID, &two_names, &[&root])).says(), "cannot be used").await;
    let only = Answer::default().with(svid(OTHER, &root)).says();
    refused(only, "there is no certificate for").await;
}

#[tokio::test]
async fn answers_that_are_too_much_or_none() {
    refused(but(|svid| svid.bundle = vec![0x30; MESSAGE_BYTES + 1]), "OutOfRange").await;
    refused(Says::Refusal(Code::PermissionDenied), "PermissionDenied: as told\\n").await;
    refused(Says::End, "the stream ended").await;
    let hundred = Authority::mint("root").unwrap();
    let hundred = svid(ID, &hundred);
    let repeated = but(|svid| svid.x509_svid = hundred.x509_svid.repeat(200));
    refused(repeated, "its chain cannot be read").await;
}

#[tokio::test]
async fn an_agent_that_says_nothing_is_given_up() {
    let agent = Agent::start(Says::Nothing);
    let supply = start(&agent, 100, 300);
    let handle = supply.workload(&id());
    problem(&supply, "no answer within 300ms").await;
    agent.says(Answer::default().with(svid(ID, &Authority::mint("root").unwrap())).says());
    svid_that(&handle, "a certificate", |_| true).await;
    until("no problem", || supply.status()[0].problem.is_none()).await;
}

#[tokio::test]
async fn issuers_in_any_order_are_put_in_theirs() {
    let root = Authority::mint("root").unwrap();
    let leaf = root.intermediate("between").unwrap().issue(&LeafRequest::for_workload(ID)).unwrap();
    let mut chain = leaf.chain_der();
    assert_eq!(chain.len(), 2);
    let mut reversed = packed(ID, &leaf, &[&root]);
    chain.reverse();
    reversed.x509_svid = chain.iter().flat_map(|one| one.to_vec()).collect();
    refused(Answer::default().with(reversed).says(), "cannot be used").await;
    let mut stuffed = packed(ID, &leaf, &[&root]);
    let stranger = Authority::mint("stranger").unwrap().certificate_der();
    stuffed.x509_svid = [&chain[1], &stranger, &chain[0]].iter().flat_map(|one| one.to_vec()).collect();
    let agent = Agent::start(Answer::default().with(stuffed).says());
    let supply = start(&agent, NEVER_MS, NEVER_MS);
    let handle = supply.workload(&id());
    let svid = svid_that(&handle, "a certificate", |_| true).await;
    chain.reverse();
    assert_eq!(svid.key().cert, chain, "leaf, its issuer, and no stranger");
}

#[tokio::test]
async fn foreign_roots_that_cannot_be_used_vouch_for_nobody_and_hold_up_nothing() {
    let [root, partner] = ["root", "partner"].map(|name| Authority::mint(name).unwrap());
    let mut answer = Answer::default()
        .with(svid(ID, &root))
        .federated("spiffe://partner.example", &[&partner])
        .federated("spiffe://cluster.local", &[&partner]);
    answer.federated.insert("spiffe://broken.example".to_owned(), b"garbage".to_vec());
    let agent = Agent::start(answer.says());
    let supply = start(&agent, NEVER_MS, NEVER_MS);
    let handle = supply.workload(&id());
    svid_that(&handle, "a certificate", |_| true).await;
    until("told", || supply.trust_status().problem.is_some()).await;
    let trust = supply.trust().borrow().clone();
    assert_eq!(trust.bundle("cluster.local").unwrap().certificates().count(), 1, "ours alone");
    assert!(trust.bundle("partner.example").is_some() && trust.bundle("broken.example").is_none());
}

#[tokio::test]
async fn lists_that_cannot_be_read_leave_the_trust_as_it_was() {
    let root = Authority::mint("root").unwrap();
    let agent = Agent::start(Answer::default().with(svid(ID, &root)).says());
    let supply = start(&agent, NEVER_MS, NEVER_MS);
    let handle = supply.workload(&id());
    svid_that(&handle, "a certificate", |_| true).await;
    let version = supply.trust().borrow().version();
    let mut broken = Answer::default().with(svid(ID, &root));
    broken.crl = vec![b"garbage".to_vec()];
    agent.says(broken.says());
    until("told", || supply.trust_status().problem.is_some_and(|said| said.contains("revocation list")))
        .await;
    assert_eq!(supply.trust().borrow().version(), version);
}
