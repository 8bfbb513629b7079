//! A policy in a namespace touches that namespace alone; one in the root namespace, all.

use proptest::{collection::vec, prelude::*, sample::select};
use tests::naive::{strategies, strategies::members};

use super::{
    decided::{Compiled, shown},
    hold,
};

const WORLDS: u32 = 300;
const QUESTIONS: usize = 24;

/// Every kind of policy is added in a namespace. Workloads of other namespaces notice nothing,
/// except where they serve a Gateway of that namespace and the policy is attached to it.
#[test]
fn policies_of_a_namespace_never_touch_another() {
    let added = (
        vec(strategies::policy(), 1..4),
        strategies::request_authentication(),
        strategies::peer_authentication(),
        select(vec!["a", "b", "elsewhere"]),
    );
    let strategy = (strategies::world(8), added, vec(strategies::asked(), QUESTIONS));
    hold(WORLDS, &strategy, |(before, added, questions)| {
        let (policies, mut request, mut peer, namespace) = added;
        let mut after = before.clone();
        for (index, mut policy) in policies.into_iter().enumerate() {
            (policy.namespace, policy.name) = (namespace, format!("added-{index}"));
            after.policies.push(policy);
        }
        (request.namespace, request.name) = (namespace, "added".to_owned());
        (peer.namespace, peer.name) = (namespace, "added".to_owned());
        after.requests.push(request);
        after.peers.push(peer);
        let untouched = |index: usize| {
            let member = &members()[index];
            member.namespace != namespace && member.gateways.iter().all(|one| one.0 != namespace)
        };
        let (old, new) = (Compiled::of(&before), Compiled::of(&after));
        for asked in questions.iter().filter(|asked| untouched(asked.member)) {
            assert_eq!(old.decide(asked), new.decide(asked), "{}", shown(&after, asked));
        }
        for index in (0..after.members.len()).filter(|index| untouched(*index)) {
            let (old, new) = (old.member(index), new.member(index));
            for port in strategies::PORTS {
                prop_assert_eq!(old.mtls_mode(port), new.mtls_mode(port));
            }
            let count = |of: &policy::istio::WorkloadPolicy| of.jwt_rules().len();
            prop_assert_eq!(count(old), count(new));
        }
        Ok(())
    });
}
