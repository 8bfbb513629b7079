//! The room's one door: rules and a request in, identity and edits out.

use std::{collections::HashSet, sync::Arc};

use policy::{Step, istio::JwtRule};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::{
    Authenticated, Clock, CountersSnapshot, IdentitySettings, IssuerStatus, Rejection, TokenBearer,
    cache::TokenCache,
    check::Checker,
    counters::Counters,
    rule::{Rule, RuleTable},
    sources::{OfflineIssuer, Origin, Sources},
    trace::Trace,
};

/// Verifies tokens; shared by all workloads, with one cache of keys and one of verified tokens.
pub struct Authenticator {
    checker: Checker,
    table: RuleTable,
    sources: Sources,
}

/// Why an [`Authenticator`] cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Keys are fetched by tasks.
    #[error("there is no tokio runtime here")]
    NoRuntime,
    /// Two entries of `identity.providers` are about one issuer.
    #[error("identity.providers: issuer {0:?} is there twice")]
    ProviderTwice(String),
    /// A number that makes no sense.
    #[error("identity.{0} must be at least 1")]
    Zero(&'static str),
}

impl Authenticator {
    /// An authenticator that fetches keys from the providers, until `stop` is cancelled.
    ///
    /// # Errors
    /// [`SetupError`].
    pub fn new(
        settings: IdentitySettings,
        clock: Clock,
        stop: CancellationToken,
    ) -> Result<Arc<Self>, SetupError> {
        check_settings(&settings)?;
        let runtime = Handle::try_current().map_err(|_| SetupError::NoRuntime)?;
        let origin = Origin::Network { runtime, stop, system: Arc::default() };
        Ok(Arc::new(Self::with_origin(settings, clock, origin)))
    }

    /// An authenticator without network: rules with `jwksUri` or discovery use the keys of this
    /// table; rules with inline `jwks` use those, and the table's of their issuer besides.
    #[must_use]
    pub fn offline(issuers: Vec<OfflineIssuer>, clock: Clock) -> Arc<Self> {
        Arc::new(Self::with_origin(IdentitySettings::default(), clock, Origin::Offline(issuers)))
    }

    fn with_origin(settings: IdentitySettings, clock: Clock, origin: Origin) -> Self {
        let checker = Checker {
            clock,
            cache: TokenCache::new(&settings.tokens),
            settings: settings.tokens.clone(),
            counters: Counters::default(),
        };
        Self { checker, table: RuleTable::default(), sources: Sources::new(settings, clock, origin) }
    }

    /// Finds and verifies the tokens of a request.
    ///
    /// # Errors
    /// A [`Rejection`] when the tokens there do not satisfy the rules.
    pub async fn authenticate(
        &self,
        rules: &[Arc<JwtRule>],
        request: TokenBearer<'_>,
    ) -> Result<Authenticated, Rejection> {
        self.require(rules, request, &mut Trace::default()).await
    }

    /// As `authenticate`, and tells each step (for `fhirward explain` and `fhirward test`).
    ///
    /// # Errors
    /// As `authenticate`.
    pub async fn explain(
        &self,
        rules: &[Arc<JwtRule>],
        request: TokenBearer<'_>,
    ) -> (Result<Authenticated, Rejection>, Vec<Step>) {
        let mut trace = Trace::on();
        let result = self.require(rules, request, &mut trace).await;
        (result, trace.into_steps())
    }

    async fn require(
        &self,
        rules: &[Arc<JwtRule>],
        request: TokenBearer<'_>,
        trace: &mut Trace,
    ) -> Result<Authenticated, Rejection> {
        if rules.is_empty() {
            return Ok(Authenticated::default());
        }
        let rules: Vec<Arc<Rule>> = rules.iter().map(|rule| self.rule(rule)).collect();
        self.checker.require(&rules, request, trace).await
    }

    /// Tells which rules the present snapshot has, so that their keys are fetched ahead, kept fresh
    /// in the background and dropped when no longer named. Called on each new snapshot.
    pub fn follow<'a>(&self, rules: impl Iterator<Item = &'a Arc<JwtRule>>) {
        let ready = self.sources.follow(rules);
        self.table.replace(ready);
    }

    /// Now, in Unix seconds, by the clock that tokens are judged by.
    #[must_use]
    pub fn now(&self) -> i64 {
        self.checker.clock.now()
    }

    /// Every issuer's state: for `/metrics`, `/readyz`, `/config_dump`. Sorted.
    #[must_use]
    pub fn issuers(&self) -> Vec<IssuerStatus> {
        let now = self.now();
        let mut all = self.sources.statuses(now);
        all.sort_by(|a, b| (&a.issuer, &a.keys_from).cmp(&(&b.issuer, &b.keys_from)));
        all
    }

    /// What happened so far, in numbers.
    #[must_use]
    pub fn counters(&self) -> CountersSnapshot {
        self.checker.counters.snapshot(self.checker.cache.len())
    }

    /// A rule made ready: from the table, or now, if no snapshot has announced it.
    fn rule(&self, manifest: &Arc<JwtRule>) -> Arc<Rule> {
        if let Some(rule) = self.table.get(manifest) {
            return rule;
        }
        let rule = self.sources.rule(manifest);
        self.table.add(&rule);
        rule
    }
}

fn check_settings(settings: &IdentitySettings) -> Result<(), SetupError> {
    let mut seen = HashSet::new();
    for provider in &settings.providers {
        if !seen.insert(&provider.issuer) {
            return Err(SetupError::ProviderTwice(provider.issuer.clone()));
        }
    }
    let (keys, tokens) = (&settings.keys, &settings.tokens);
    let zero = [
        ("keys.refreshSeconds", keys.refresh_seconds == 0),
        ("keys.retryMinMs", keys.retry_min_ms == 0),
        ("keys.connectTimeoutMs", keys.connect_timeout_ms == 0),
        ("keys.fetchTimeoutMaxMs", keys.fetch_timeout_max_ms == 0),
        ("keys.documentBytes", keys.document_bytes == 0),
        ("tokens.tokenBytes", tokens.token_bytes == 0),
        ("tokens.tokensPerRule", tokens.tokens_per_rule == 0),
    ];
    match zero.into_iter().find(|(_, is_zero)| *is_zero) {
        Some((name, _)) => Err(SetupError::Zero(name)),
        None => Ok(()),
    }
}
