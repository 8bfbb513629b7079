//! A compiled rule: any `from`, any `to`, all `when`.

use std::sync::Arc;

use super::{
    predicate::{Predicate, Test},
    spec::Action,
    tracer::Tracer,
    words,
};
use crate::{Outcome, Place, Question};

/// One rule. Clauses of `from` and `to` are ANDs; no clause at all matches everything.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) id: Arc<str>,
    pub(super) place: Option<Place>,
    pub(super) action: Action,
    pub(super) from: Vec<Vec<Predicate>>,
    pub(super) to: Vec<Vec<Predicate>>,
    pub(super) when: Vec<Predicate>,
    /// It asks for something that only HTTP has.
    pub(super) http: bool,
}

impl Rule {
    pub(super) fn new(
        action: Action,
        from: Vec<Vec<Predicate>>,
        to: Vec<Vec<Predicate>>,
        when: Vec<Predicate>,
    ) -> Self {
        let http = from.iter().chain(&to).flatten().chain(&when).any(|predicate| predicate.test.http_only());
        Self { id: Arc::from(""), place: None, action, from, to, when, http }
    }

    /// Whether a TCP connection never comes under it: an ALLOW rule with HTTP fields vanishes
    /// there. Of the other actions only the HTTP fields vanish, so that they deny the port.
    pub(super) fn void_for(&self, tcp: bool) -> bool {
        tcp && self.http && self.action == Action::Allow
    }

    /// Whether it matches. With a tracer that listens, every predicate is looked at; without one,
    /// no more than needed.
    pub(super) fn matches<T: Tracer>(&self, question: &Question<'_>, tracer: &mut T) -> bool {
        let step = tracer.open(1, || self.id.to_string(), self.place.as_ref());
        let matched = if self.void_for(question.request.is_none()) {
            tracer.close(step, Outcome::NotMatched, || {
                "the rule has HTTP fields, so it does not exist for a TCP connection".to_owned()
            });
            return false;
        } else {
            // No short cut between the parts when somebody listens.
            let from = any(&self.from, question, tracer);
            let to = (from || T::LISTENS) && any(&self.to, question, tracer);
            let when = ((from && to) || T::LISTENS) && all(&self.when, question, tracer);
            from && to && when
        };
        tracer.close(step, if matched { Outcome::Matched } else { Outcome::NotMatched }, || {
            if self.is_empty() { "the rule is empty: it matches everything" } else { "" }.to_owned()
        });
        matched
    }

    /// Whether some request of the caller could come under it: what only a request says may be anything.
    pub(super) fn may_match(&self, question: &Question<'_>) -> bool {
        self.matches_where(|predicate| comes_later(predicate) || predicate.holds(question))
    }

    /// Whether every request of the caller comes under it: what only a request says must not matter.
    pub(super) fn must_match(&self, question: &Question<'_>) -> bool {
        self.matches_where(|predicate| !comes_later(predicate) && predicate.holds(question))
    }

    fn matches_where(&self, holds: impl Fn(&Predicate) -> bool) -> bool {
        let any = |clauses: &[Vec<Predicate>]| {
            clauses.is_empty() || clauses.iter().any(|clause| clause.iter().all(&holds))
        };
        any(&self.from) && any(&self.to) && self.when.iter().all(&holds)
    }

    fn is_empty(&self) -> bool {
        self.from.is_empty() && self.to.is_empty() && self.when.is_empty()
    }
}

/// Whether it is not known of a connection before its first bytes: what a request says, the original
/// client's address among it, and the server name of TLS within.
fn comes_later(predicate: &Predicate) -> bool {
    predicate.test.http_only() || matches!(predicate.test, Test::RemoteIp(_) | Test::Sni(_))
}

fn any<T: Tracer>(clauses: &[Vec<Predicate>], question: &Question<'_>, tracer: &mut T) -> bool {
    let mut matched = clauses.is_empty();
    for clause in clauses {
        matched |= all(clause, question, tracer);
        if matched && !T::LISTENS {
            break;
        }
    }
    matched
}

fn all<T: Tracer>(clause: &[Predicate], question: &Question<'_>, tracer: &mut T) -> bool {
    let mut matched = true;
    for predicate in clause {
        matched &= holds(predicate, question, tracer);
        if !matched && !T::LISTENS {
            break;
        }
    }
    matched
}

fn holds<T: Tracer>(predicate: &Predicate, question: &Question<'_>, tracer: &mut T) -> bool {
    // Only rules that are not ALLOW get here with an HTTP field and no request.
    let dropped = question.request.is_none() && predicate.test.http_only();
    let holds = dropped || predicate.holds(question);
    let step = tracer.open(2, || predicate.label.to_string(), None);
    tracer.close(step, if holds { Outcome::Matched } else { Outcome::NotMatched }, || {
        if dropped {
            "an HTTP field, dropped for a TCP connection".to_owned()
        } else {
            words::detail(predicate, question)
        }
    });
    tracer.redact(step, || words::redacted(&predicate.test, question));
    holds
}
