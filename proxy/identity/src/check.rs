//! One token against one rule: cache, parse, issuer, time, audience, signature (istio.io's order).

use std::sync::{Arc, atomic::AtomicU64, atomic::Ordering};

use crate::{
    Clock,
    cache::{TokenCache, Verified},
    counters::Counters,
    keys::{Fingerprint, KeySet},
    output,
    reason::RejectionReason as Reason,
    rule::Rule,
    settings::TokenSettings,
    source::{State, Wait},
    token::Token,
    trace::Trace,
};

/// What checking needs besides rule and token.
#[derive(Debug)]
pub(crate) struct Checker {
    pub(crate) clock: Clock,
    pub(crate) settings: TokenSettings,
    pub(crate) cache: TokenCache,
    pub(crate) counters: Counters,
}

/// Why a token does not satisfy a rule.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) reason: Reason,
    /// Keys that may come and change that.
    pub(crate) wanted: Option<Wanted>,
}

/// Keys worth waiting for.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) wait: Wait,
    /// The unknown `kid`; `None`: there are no keys at all.
    pub(crate) kid: Option<String>,
}

impl From<Reason> for Failure {
    fn from(reason: Reason) -> Self {
        Self { reason, wanted: None }
    }
}

/// Whether a check may ask the provider for newer keys, or is the second one after having asked.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Attempt {
    First,
    AfterWait,
}

impl Checker {
    /// Checks a token, as it counts now or counted at an earlier time.
    ///
    /// # Errors
    /// [`Failure`].
    pub(crate) fn check(
        &self,
        rule: &Rule,
        (token, at): (&[u8], Option<i64>),
        attempt: Attempt,
        trace: &mut Trace,
    ) -> Result<Arc<Verified>, Failure> {
        let now = at.unwrap_or_else(|| self.clock.now());
        if token.len() > self.settings.token_bytes {
            trace.predicate("token", false, || format!("longer than {} bytes", self.settings.token_bytes));
            return Err(Reason::TooLarge.into());
        }
        let key = self.cache.key(rule, token);
        let state = rule.source.state();
        let usable = state.usable(now, rule.source.settings.max_age_seconds);
        // An explanation is to tell every check, so it does not rest on an earlier request's.
        if usable.is_some()
            && !trace.is_on()
            && let Some(verified) = key.and_then(|key| self.cache.get(&key, &state, now))
        {
            self.counters.cache_hits.fetch_add(1, Ordering::Relaxed);
            return Ok(verified);
        }
        let parsed = self.check_claims(rule, token, now, trace)?;
        // What is asked for below is what this very state lacks.
        let Some(keys) = usable else {
            return Err(no_keys(rule, &state, attempt, trace));
        };
        let print = self.check_signature(rule, &parsed, (&state, keys), attempt, trace)?;
        self.counters.verified.fetch_add(1, Ordering::Relaxed);
        let headers = output::headers(&parsed, &rule.manifest);
        let (not_before, expires) = (parsed.not_before, parsed.expires);
        let verified = Arc::new(Verified {
            identity: Arc::new(output::identity(parsed, &rule.manifest)),
            headers,
            not_before,
            expires,
            key: print,
            generation: AtomicU64::new(state.generation),
            token_bytes: token.len(),
        });
        if let Some(key) = key {
            self.cache.put(key, &verified);
        }
        Ok(verified)
    }

    /// Everything that the token says of itself.
    fn check_claims<'a>(
        &self,
        rule: &Rule,
        token: &'a [u8],
        now: i64,
        trace: &mut Trace,
    ) -> Result<Token<'a>, Reason> {
        let parsed = Token::parse(token, &self.settings);
        trace.predicate("form", parsed.is_ok(), || match &parsed {
            Ok(token) => format!("alg {}, {}", token.algorithm.name(), kid_text(token)),
            Err(reason) => reason.to_string(),
        });
        let token = parsed?;
        let (issuer, wanted) = (token.issuer(), rule.issuer.as_ref());
        let fits = wanted.is_empty() || issuer == wanted;
        trace.predicate("issuer", fits, || match (fits, wanted) {
            (true, "") => format!("is {issuer:?}; the rule takes any"),
            (true, _) => format!("is {issuer:?}"),
            (false, _) => format!("is {issuer:?}, wanted {wanted:?}"),
        });
        if !fits {
            return Err(Reason::UnknownIssuer);
        }
        let time = token.check_time(now, self.settings.clock_skew_seconds);
        trace.predicate("time", time.is_ok(), || self.time_text(&token, now));
        time?;
        let audience = token.check_audience(&rule.audiences);
        trace.predicate("audience", audience.is_ok(), || audience_text(&token, rule));
        audience?;
        Ok(token)
    }

    fn check_signature(
        &self,
        rule: &Rule,
        token: &Token<'_>,
        (state, keys): (&State, &KeySet),
        attempt: Attempt,
        trace: &mut Trace,
    ) -> Result<Fingerprint, Failure> {
        let kid = token.kid.as_deref().unwrap_or_default();
        let failed = match keys.verify(token) {
            Ok(print) => {
                if matches!(attempt, Attempt::AfterWait) {
                    rule.source.tell(kid, true);
                }
                trace.predicate("signature", true, || format!("{} verifies", kid_text(token)));
                return Ok(print);
            }
            Err(failed) => failed,
        };
        trace.predicate("signature", false, || {
            let (count, from) = (keys.len(), &rule.source.keys_from);
            match failed.newer_keys_may_help && token.kid.is_some() {
                true => format!("{} is not among the {count} keys of {from}", kid_text(token)),
                false => format!("{}: {} ({count} keys of {from})", failed.reason, kid_text(token)),
            }
        });
        let mut wanted = None;
        if failed.newer_keys_may_help {
            match attempt {
                Attempt::First => {
                    let wait = rule.source.ask_for_newer(state, kid);
                    wanted = wait.map(|wait| Wanted { wait, kid: Some(kid.to_owned()) });
                }
                Attempt::AfterWait => rule.source.tell(kid, false),
            }
        }
        Err(Failure { reason: failed.reason, wanted })
    }

    fn time_text(&self, token: &Token<'_>, now: i64) -> String {
        let skew = self.settings.clock_skew_seconds;
        let show = |at: Option<u64>| at.map_or_else(|| "absent".to_owned(), |at| at.to_string());
        let (nbf, exp) = (show(token.not_before), show(token.expires));
        format!("nbf {nbf}, exp {exp}, now {now}, allowed skew {skew} s")
    }
}

fn no_keys(rule: &Rule, state: &State, attempt: Attempt, trace: &mut Trace) -> Failure {
    let source = &rule.source;
    trace.predicate("signature", false, || {
        let why = state.last_error.as_deref().unwrap_or("none have been fetched yet");
        match state.keys {
            Some(_) => format!("the keys of {} are too old to be used: {why}", source.keys_from),
            None => format!("there are no keys from {}: {why}", source.keys_from),
        }
    });
    // A manifest's own keys do not come later.
    let reason = match &rule.manifest.keys {
        policy::istio::KeySource::Inline(_) => Reason::NoValidKeys,
        _ => Reason::KeysUnavailable,
    };
    let wait = match attempt {
        Attempt::First => source.ask_for_first(state),
        Attempt::AfterWait => None,
    };
    Failure { reason, wanted: wait.map(|wait| Wanted { wait, kid: None }) }
}

fn kid_text(token: &Token<'_>) -> String {
    token.kid.as_ref().map_or_else(|| "no kid".to_owned(), |kid| format!("kid {kid:?}"))
}

fn audience_text(token: &Token<'_>, rule: &Rule) -> String {
    let wanted = &rule.manifest.audiences;
    let has = match token.audiences.as_slice() {
        [] => "audience is absent".to_owned(),
        [one] => format!("audience is {one:?}"),
        many => format!("audiences are {many:?}"),
    };
    match wanted.is_empty() {
        true => format!("{has}; the rule takes any"),
        false => format!("{has}, wanted one of {wanted:?}"),
    }
}
