//! A request against all rules of a workload, as Istio has Envoy combine them
//! (pilot/pkg/security/authn, convertToEnvoyJwtConfig; Envoy's verifier.cc):
//! any rule satisfied, or all of them without a token. One rule's tokens must all verify.

use std::sync::{Arc, atomic::Ordering};

use futures_util::stream::{FuturesUnordered, StreamExt};
use http::{HeaderName, Method, header};
use policy::{Outcome, istio::TokenPlace};

use crate::{
    Authenticated, Edits, Rejection, TokenBearer,
    cache::Verified,
    check::{Attempt, Checker, Failure, Wanted},
    find::{Found, describe, find},
    reason::RejectionReason as Reason,
    rule::Rule,
    trace::Trace,
};

/// How a rule fared.
struct Tried<'a> {
    rule: &'a Rule,
    reason: Reason,
    wanted: Option<Wanted>,
}

impl Checker {
    /// Authenticates a request against its workload's rules, in their order.
    ///
    /// # Errors
    /// The [`Rejection`] that Envoy would answer with.
    pub(crate) async fn require(
        &self,
        rules: &[Arc<Rule>],
        request: TokenBearer<'_>,
        trace: &mut Trace,
    ) -> Result<Authenticated, Rejection> {
        let guarded = Edits { remove_headers: spoofed(rules, request), ..Edits::default() };
        if is_preflight(request) {
            trace.step(0, Outcome::Info, || note("CORS preflight: tokens are not looked at"));
            self.counters.preflights.fetch_add(1, Ordering::Relaxed);
            return Ok(Authenticated { edits: guarded, ..Authenticated::default() });
        }
        let mut tried = Vec::new();
        for rule in rules {
            match self.try_rule(rules, rule, request, Attempt::First, trace) {
                Ok(passed) => return Ok(passed.authenticated(guarded)),
                Err(failure) => {
                    tried.push(Tried { rule, reason: failure.reason, wanted: failure.wanted });
                }
            }
        }
        if tried.iter().any(|one| one.wanted.is_some())
            && let Some(passed) = self.try_again(rules, &mut tried, request, trace).await
        {
            return Ok(passed.authenticated(guarded));
        }
        let Some((reason, rule)) = verdict(&tried) else {
            trace.step(0, Outcome::Info, || note("no token: the request goes on without identity"));
            self.counters.without_token.fetch_add(1, Ordering::Relaxed);
            return Ok(Authenticated { edits: guarded, ..Authenticated::default() });
        };
        self.counters.rejected(reason);
        trace.step(0, Outcome::NotMatched, || note(&format!("refused: {reason}")));
        Err(Rejection { reason, origin: Some(Arc::clone(&rule.manifest.origin)) })
    }

    /// All tokens of one rule.
    fn try_rule<'a>(
        &self,
        rules: &[Arc<Rule>],
        rule: &'a Rule,
        request: TokenBearer<'a>,
        attempt: Attempt,
        trace: &mut Trace,
    ) -> Result<Passed<'a>, Failure> {
        let found = find(&rule.manifest.places, request, &|name| sets(rules, name));
        trace.step(1, Outcome::Info, || {
            let places: Vec<String> = rule.manifest.places.iter().map(describe).collect();
            let detail = match found.len() {
                0 => format!("no token in {}", places.join(", ")),
                count => format!("issuer {:?}: {count} token(s) found", rule.issuer),
            };
            (rule.manifest.origin.to_string(), detail, Some(rule.manifest.place.to_string()))
        });
        if found.is_empty() {
            return Err(Reason::Missing.into());
        }
        if found.len() > self.settings.tokens_per_rule {
            return Err(Reason::MultipleTokens.into());
        }
        let mut last = None;
        for token in &found {
            trace.step(2, Outcome::Info, || ("token".to_owned(), describe(token.place), None));
            last = Some(self.check(rule, (&token.text, request.at), attempt, trace)?);
        }
        let verified = last.ok_or(Reason::Missing)?;
        Ok(Passed { rule, verified, found })
    }

    /// Waits for keys that may come, all issuers at once, and tries each rule again as its keys
    /// come; the first that passes ends it.
    async fn try_again<'a>(
        &self,
        rules: &[Arc<Rule>],
        tried: &mut [Tried<'a>],
        request: TokenBearer<'a>,
        trace: &mut Trace,
    ) -> Option<Passed<'a>> {
        let mut waits = FuturesUnordered::new();
        for (index, one) in tried.iter_mut().enumerate() {
            if let Some(wanted) = one.wanted.take() {
                let rule = one.rule;
                waits.push(async move {
                    let ended = rule.source.wait(wanted.wait, rule.manifest.timeout).await;
                    (index, ended, wanted.kid)
                });
            }
        }
        while let Some((index, ended, kid)) = waits.next().await {
            let Some(one) = tried.get_mut(index) else { continue };
            let (rule, asked) = (one.rule, kid.map_or_else(String::new, |kid| format!(" for kid {kid:?}")));
            trace.step(1, Outcome::Info, || {
                let outcome = if ended { "has answered or failed" } else { "has not answered in time" };
                let detail = format!("{} was asked{asked} and {outcome}", rule.source.keys_from);
                (rule.manifest.origin.to_string(), detail, None)
            });
            if !ended {
                continue;
            }
            match self.try_rule(rules, rule, request, Attempt::AfterWait, trace) {
                Ok(passed) => return Some(passed),
                Err(failure) => one.reason = failure.reason,
            }
        }
        None
    }
}

/// A rule that is satisfied.
struct Passed<'a> {
    rule: &'a Rule,
    /// Of several tokens, the one that Envoy ends with.
    verified: Arc<Verified>,
    found: Vec<Found<'a>>,
}

impl Passed<'_> {
    fn authenticated(self, mut edits: Edits) -> Authenticated {
        if !self.rule.manifest.forward_original_token {
            for token in &self.found {
                match token.place {
                    TokenPlace::Header { name, .. } => {
                        if !edits.remove_headers.contains(name) {
                            edits.remove_headers.push(name.clone());
                        }
                    }
                    TokenPlace::Parameter(name) => edits.remove_parameters.push(name.clone()),
                    TokenPlace::Cookie(_) => {}
                }
            }
        }
        edits.set_headers.clone_from(&self.verified.headers);
        Authenticated {
            identity: Some(Arc::clone(&self.verified.identity)),
            issuer: Some(Arc::clone(&self.rule.issuer)),
            health: Some(self.rule.source.state().health),
            edits,
        }
    }
}

/// What Envoy answers when no rule is satisfied; `None`: no rule saw a token, so the request goes
/// on without identity.
///
/// Envoy asks {P1, P2, …, AND of {Pi or missing}}: the AND ends with the first failure that is not
/// `Missing`, and stands last; of all failures the last one counts that is neither `Missing` nor
/// `UnknownIssuer`.
fn verdict<'a>(tried: &[Tried<'a>]) -> Option<(Reason, &'a Rule)> {
    let first = tried.iter().find(|one| one.reason != Reason::Missing)?;
    let counts = if first.reason.is_weak() {
        tried.iter().rev().find(|one| !one.reason.is_weak()).unwrap_or(first)
    } else {
        first
    };
    Some((counts.reason, counts.rule))
}

/// Headers that some rule sets and that this request brings along: taken off, token or not, so
/// that nobody can set them but us.
fn spoofed(rules: &[Arc<Rule>], request: TokenBearer<'_>) -> Vec<HeaderName> {
    let mut names = Vec::new();
    for name in rules.iter().flat_map(|rule| outputs(rule)) {
        if request.headers.contains_key(name) && !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

/// Whether some rule sets that header: then no token is read from it.
fn sets(rules: &[Arc<Rule>], name: &HeaderName) -> bool {
    rules.iter().flat_map(|rule| outputs(rule)).any(|output| output == name)
}

fn outputs(rule: &Rule) -> impl Iterator<Item = &HeaderName> {
    let claims = rule.manifest.output_claim_to_headers.iter().map(|(name, _)| name);
    rule.manifest.output_payload_to_header.iter().chain(claims)
}

/// Fetch standard, CORS-preflight request; as Envoy's `bypass_cors_preflight`.
fn is_preflight(request: TokenBearer<'_>) -> bool {
    let has = |name| request.headers.get(name).is_some_and(|value| !value.is_empty());
    request.method == Method::OPTIONS && has(header::ORIGIN) && has(header::ACCESS_CONTROL_REQUEST_METHOD)
}

fn note(detail: &str) -> (String, String, Option<String>) {
    ("authentication".to_owned(), detail.to_owned(), None)
}
