//! More refusals never permit more, and what decides nothing changes nothing.

use policy::Verdict;
use proptest::{collection::vec, prelude::*};
use tests::naive::{Action, Rule, World, strategies};

use super::{
    decided::{Compiled, answer, shown},
    hold,
};

const QUESTIONS: usize = 20;
const WORLDS: u32 = 250;

/// Tries a change of the policies; `may` says of two verdicts, before and after, whether they may
/// follow one another.
fn never(change: impl Fn(&mut World, tests::naive::Policy) -> bool, may: impl Fn(Verdict, Verdict) -> bool) {
    let strategy = (strategies::world(8), strategies::policy(), vec(strategies::asked(), QUESTIONS));
    hold(WORLDS, &strategy, |(before, mut policy, questions)| {
        policy.name = "added".to_owned();
        let mut after = before.clone();
        prop_assume!(change(&mut after, policy));
        let (old, new) = (Compiled::of(&before), Compiled::of(&after));
        for asked in &questions {
            let (was, is) = (old.decide(asked).verdict, new.decide(asked).verdict);
            assert!(may(was, is), "{was:?} became {is:?} in\n{}", shown(&after, asked));
        }
        Ok(())
    });
}

fn no_wider(was: Verdict, is: Verdict) -> bool {
    was == Verdict::Allow || is == Verdict::Deny
}

fn no_narrower(was: Verdict, is: Verdict) -> bool {
    was == Verdict::Deny || is == Verdict::Allow
}

#[test]
fn a_further_deny_or_custom_never_permits_more() {
    for action in [Action::Deny, Action::Custom] {
        let add = |world: &mut World, mut policy: tests::naive::Policy| {
            // What CUSTOM may hold, every action may.
            let fits = policy.action == Action::Custom || action == Action::Deny;
            policy.action = action;
            policy.rules.push(Rule::default());
            policy.rules.truncate(3);
            if policy.action == Action::Custom && !fits {
                policy.rules = vec![Rule::default()];
            }
            world.policies.push(policy);
            true
        };
        never(add, no_wider);
    }
}

/// Taking an ALLOW policy away never permits more, as long as another ALLOW policy of the same
/// selection stays: with the last one goes the rule that what none matches is refused.
#[test]
fn an_allow_less_among_several_never_permits_more() {
    let remove = |world: &mut World, mut stays: tests::naive::Policy| {
        let enforced = |one: &tests::naive::Policy| one.action == Action::Allow && !one.dry_run;
        let Some(at) = world.policies.iter().position(enforced) else { return false };
        let removed = world.policies.remove(at);
        // An ALLOW policy without rules refuses as its presence does, and allows nothing.
        (stays.action, stays.dry_run) = (Action::Allow, false);
        stays.rules.clear();
        (stays.namespace, stays.selection) = (removed.namespace, removed.selection);
        world.policies.push(stays);
        true
    };
    never(remove, no_wider);
}

#[test]
fn a_further_rule_of_an_allow_never_refuses_more() {
    let widen = |world: &mut World, more: tests::naive::Policy| {
        let enforced = |one: &&mut tests::naive::Policy| one.action == Action::Allow;
        // CUSTOM rules went through a sieve, and hold nothing that ALLOW may not.
        let Some(policy) = world.policies.iter_mut().find(enforced) else { return false };
        policy.rules.extend(more.rules);
        true
    };
    never(widen, no_narrower);
}

#[test]
fn audit_and_trial_policies_decide_nothing() {
    let strategy = (strategies::world(8), strategies::policy(), vec(strategies::asked(), QUESTIONS));
    hold(WORLDS, &strategy, |(before, policy, questions)| {
        let mut after = before.clone();
        let mut trial = policy.clone();
        trial.dry_run = true;
        trial.name = "trial".to_owned();
        if trial.action == Action::Audit || trial.action == Action::Custom {
            trial.action = Action::Deny;
        }
        let audit = tests::naive::Policy {
            action: Action::Audit,
            name: "audit".to_owned(),
            rules: if policy.rules.is_empty() { vec![Rule::default()] } else { policy.rules.clone() },
            ..policy
        };
        if trial.rules.is_empty() {
            trial.action = Action::Allow;
        }
        after.policies.extend([trial, audit]);
        let (old, new) = (Compiled::of(&before), Compiled::of(&after));
        for asked in &questions {
            let (was, is) = (answer(&old.decide(asked)), answer(&new.decide(asked)));
            assert_eq!((was.allowed, was.rule), (is.allowed, is.rule), "{}", shown(&after, asked));
        }
        Ok(())
    });
}
