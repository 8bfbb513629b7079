//! The engine and the second evaluator agree.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use policy::istio::MtlsMode;
use proptest::collection::vec;
use tests::naive::{self, Mode, strategies};

use super::{
    decided::{Compiled, answer, shown},
    hold,
};

/// Worlds, and questions to each: 104,000 decisions.
const WORLDS: u32 = 1_300;
const QUESTIONS: usize = 80;
/// Every so many questions the explanation is held to the decision too.
const EXPLAINED: usize = 4;

/// What the questions came to: a run in which nearly everything is refused proves little.
#[derive(Default)]
struct Tally {
    decisions: AtomicUsize,
    allowed_by_rule: AtomicUsize,
    allowed_by_none: AtomicUsize,
    denied_by_rule: AtomicUsize,
    denied_by_none: AtomicUsize,
    audited: AtomicUsize,
}

impl Tally {
    fn add(&self, answer: &naive::Answer) {
        self.decisions.fetch_add(1, Relaxed);
        let kind = match (answer.allowed, &answer.rule) {
            (true, Some(_)) => &self.allowed_by_rule,
            (true, None) => &self.allowed_by_none,
            (false, Some(_)) => &self.denied_by_rule,
            (false, None) => &self.denied_by_none,
        };
        kind.fetch_add(1, Relaxed);
        self.audited.fetch_add(usize::from(!answer.audited.is_empty()), Relaxed);
    }

    /// Every kind of answer is a good part of all.
    fn check(&self) {
        let count = |of: &AtomicUsize| of.load(Relaxed);
        let all = count(&self.decisions);
        let kinds = [
            ("allowed by a rule", &self.allowed_by_rule),
            ("allowed for want of ALLOW policies", &self.allowed_by_none),
            ("denied by a rule", &self.denied_by_rule),
            ("denied for want of a matching rule", &self.denied_by_none),
            ("audited", &self.audited),
        ];
        for (name, of) in kinds {
            println!("{:>7} of {all} {name}", count(of));
            assert!(count(of) * 20 >= all, "only {} of {all} {name}", count(of));
        }
    }
}

#[test]
fn the_engine_agrees_with_the_second_evaluator() {
    let tally = Tally::default();
    let strategy = (strategies::world(10), vec(strategies::asked(), QUESTIONS));
    hold(WORLDS, &strategy, |(world, questions)| {
        let compiled = Compiled::of(&world);
        for (index, asked) in questions.iter().enumerate() {
            let decision = if index % EXPLAINED == 0 {
                compiled.decide_and_explain(asked)
            } else {
                compiled.decide(asked)
            };
            let wanted = naive::decide(&world, asked);
            assert_eq!(answer(&decision), wanted, "engine and second evaluator\n{}", shown(&world, asked));
            tally.add(&wanted);
        }
        Ok(())
    });
    tally.check();
}

#[test]
fn connections_and_issuers_agree_with_the_second_evaluator() {
    hold(800, &strategies::world(1), |world| {
        let compiled = Compiled::of(&world);
        for (index, member) in world.members.iter().enumerate() {
            let holding = compiled.member(index);
            for port in strategies::PORTS.into_iter().chain([5432]) {
                let mode = match holding.mtls_mode(port) {
                    MtlsMode::Disable => Mode::Disable,
                    MtlsMode::Permissive => Mode::Permissive,
                    MtlsMode::Strict => Mode::Strict,
                };
                assert_eq!(mode, naive::mode(&world, member, port), "port {port} of {member:?}\n{world:#?}");
            }
            let issuers: Vec<_> = holding.jwt_rules().iter().map(|rule| rule.issuer.as_str()).collect();
            assert_eq!(issuers, naive::issuers(&world, member), "{member:?}\n{world:#?}");
        }
        Ok(())
    });
}
