//! In what order anything is written never matters to what is decided.
//!
//! What may differ is the name of the rule that is reported: `rule[i]` counts the rules of its
//! policy in the order written, and of several matching rules the first by name is named. The
//! explanation lists rules by name and values as written.

use policy::Decision;
use proptest::{collection::vec, prelude::*, sample::Index};
use serde_json::Value;
use tests::naive::{Policy, World, print, strategies};

use super::{
    decided::{Compiled, answer, shown},
    hold,
};

const QUESTIONS: usize = 20;
const WORLDS: u32 = 300;

/// Shuffles a list by a row of indexes.
fn shuffle<T>(list: &mut [T], order: &[Index]) {
    for (at, index) in order.iter().enumerate().take(list.len()) {
        let with = index.index(list.len());
        list.swap(at, with);
    }
}

fn shuffle_within(policy: &mut Policy, order: &[Index], rules: bool) {
    for rule in &mut policy.rules {
        for clause in rule.from.iter_mut().chain(&mut rule.to) {
            clause.iter_mut().for_each(|list| shuffle(&mut list.values, order));
            shuffle(clause, order);
        }
        shuffle(&mut rule.from, order);
        shuffle(&mut rule.to, order);
        for condition in &mut rule.when {
            shuffle(&mut condition.values, order);
            shuffle(&mut condition.not_values, order);
        }
        shuffle(&mut rule.when, order);
    }
    if rules {
        shuffle(&mut policy.rules, order);
    }
}

fn compare(
    shuffled: impl Fn(&World, &[Index]) -> (World, Vec<Value>),
    same: impl Fn(&Decision, &Decision) -> bool,
) {
    let strategy = (strategies::world(9), vec(any::<Index>(), 24), vec(strategies::asked(), QUESTIONS));
    hold(WORLDS, &strategy, |(world, order, questions)| {
        let (other, objects) = shuffled(&world, &order);
        let text = print::documents(&objects, &print::HANDS);
        let (one, two) = (Compiled::of(&world), Compiled::read(&text, &other));
        for asked in &questions {
            let (a, b) = (one.decide_and_explain(asked), two.decide_and_explain(asked));
            assert!(same(&a, &b), "{a:?}\nagainst {b:?} of\n{text}\n{}", shown(&world, asked));
        }
        for (index, member) in world.members.iter().enumerate() {
            let (a, b) = (one.member(index), two.member(index));
            for port in strategies::PORTS {
                assert_eq!(
                    a.mtls_mode(port),
                    b.mtls_mode(port),
                    "{member:?} port {port}\n{text}\n{world:#?}"
                );
            }
            let rules = |of: &policy::istio::WorkloadPolicy| -> Vec<_> {
                let all = of.jwt_rules().iter();
                all.map(|rule| (rule.issuer.clone(), rule.audiences.clone(), rule.origin.clone())).collect()
            };
            assert_eq!(rules(a), rules(b), "{member:?}\n{text}\n{world:#?}");
        }
        Ok(())
    });
}

/// Policies, files and values: the whole decision is the same, down to the rule's name.
#[test]
fn the_order_of_policies_files_and_values_changes_nothing() {
    let shuffled = |world: &World, order: &[Index]| {
        let mut world = world.clone();
        world.policies.iter_mut().for_each(|policy| shuffle_within(policy, order, false));
        let mut objects = print::objects(&world);
        shuffle(&mut objects, order);
        (world, objects)
    };
    compare(shuffled, |a, b| a == b);
}

/// Rules: the verdict and which policies are named are the same.
#[test]
fn the_order_of_rules_changes_no_verdict() {
    let shuffled = |world: &World, order: &[Index]| {
        let mut world = world.clone();
        world.policies.iter_mut().for_each(|policy| shuffle_within(policy, order, true));
        let objects = print::objects(&world);
        (world, objects)
    };
    let policy = |rule: &String| rule.split("-rule[").next().unwrap_or_default().to_owned();
    compare(shuffled, |a, b| {
        let (a, b) = (answer(a), answer(b));
        let (one, two): (Vec<_>, Vec<_>) =
            (a.audited.iter().map(policy).collect(), b.audited.iter().map(policy).collect());
        (a.allowed, a.rule.as_ref().map(policy), one) == (b.allowed, b.rule.as_ref().map(policy), two)
    });
}
