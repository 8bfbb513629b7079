//! The room's one door: rules and a request in, identity and edits out.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use policy::{
    Step,
    istio::{JwtRule, KeySource},
};
use tokio::{runtime::Handle, sync::OnceCell};
use tokio_util::sync::CancellationToken;

use crate::{
    Authenticated, Clock, CountersSnapshot, Health, IdentitySettings, IssuerStatus, Rejection, TokenBearer,
    cache::TokenCache,
    check::Checker,
    counters::Counters,
    keys::KeySet,
    net::{Client, GetLimits},
    rule::{Rule, RuleTable},
    source::{DiskCache, Provider, Source, run},
    trace::Trace,
};

/// Verifies tokens; shared by all workloads, with one cache of keys and one of verified tokens.
pub struct Authenticator {
    settings: IdentitySettings,
    checker: Checker,
    table: RuleTable,
    /// One writer at a time; requests come here only with a rule that is not in the table yet.
    sources: Mutex<HashMap<SourceKey, Arc<Source>>>,
    origin: Origin,
}

/// Where keys are had.
enum Origin {
    /// From providers, by tasks on this runtime, until this is cancelled.
    Network { runtime: Handle, stop: CancellationToken, system: Arc<OnceCell<Arc<rustls::ClientConfig>>> },
    /// From this table.
    Offline(Vec<OfflineIssuer>),
}

/// One source per issuer and place of keys.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct SourceKey {
    issuer: String,
    keys: KeySource,
}

/// The keys of an issuer in a run without network (`fhirward test`, `fhirward explain`).
#[derive(Debug, Clone)]
pub struct OfflineIssuer {
    /// Issuer; rules of this issuer use these keys.
    pub issuer: String,
    /// Rules with this `jwksUri` use them too, whatever their issuer.
    pub jwks_uri: Option<String>,
    /// A JWKS document.
    pub jwks_json: String,
    /// The health that is told of it.
    pub health: Health,
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
        let system = Arc::new(OnceCell::new());
        Ok(Arc::new(Self::with_origin(settings, clock, Origin::Network { runtime, stop, system })))
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
        let (table, sources) = (RuleTable::default(), Mutex::default());
        Self { settings, checker, table, sources, origin }
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
        let mut sources = self.sources();
        let mut named = HashSet::new();
        let mut ready = Vec::new();
        for manifest in rules {
            let key = SourceKey::of(manifest);
            let source = self.source(&mut sources, &key, manifest.timeout);
            named.insert(key);
            ready.push(Arc::new(Rule::new(Arc::clone(manifest), source)));
        }
        sources.retain(|key, source| {
            let keep = named.contains(key);
            if !keep {
                source.stop.cancel();
            }
            keep
        });
        self.table.replace(ready);
    }

    /// Every issuer's state: for `/metrics`, `/readyz`, `/config_dump`. Sorted.
    #[must_use]
    pub fn issuers(&self) -> Vec<IssuerStatus> {
        let now = self.checker.clock.now();
        let mut all: Vec<IssuerStatus> = self.sources().values().map(|source| source.status(now)).collect();
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
        let key = SourceKey::of(manifest);
        let source = self.source(&mut self.sources(), &key, manifest.timeout);
        let rule = Arc::new(Rule::new(Arc::clone(manifest), source));
        self.table.add(&rule);
        rule
    }

    fn source(
        &self,
        sources: &mut HashMap<SourceKey, Arc<Source>>,
        key: &SourceKey,
        timeout: Duration,
    ) -> Arc<Source> {
        if let Some(source) = sources.get(key) {
            source.allow_timeout(timeout);
            return Arc::clone(source);
        }
        let source = match (&self.origin, &key.keys) {
            (Origin::Offline(table), _) => self.offline_source(table, key),
            (Origin::Network { .. }, KeySource::Inline(text)) => {
                let keys = self.parse(&key.issuer, text);
                Arc::new(Source::fixed(key.issuer.as_str().into(), inline(), keys, Health::Up))
            }
            (Origin::Network { runtime, stop, system }, _) => {
                self.network_source(key, timeout, runtime, stop, system)
            }
        };
        sources.insert(key.clone(), Arc::clone(&source));
        source
    }

    fn offline_source(&self, table: &[OfflineIssuer], key: &SourceKey) -> Arc<Source> {
        let entry = table.iter().find(|entry| match &key.keys {
            KeySource::Uri(uri) if entry.jwks_uri.as_ref() == Some(uri) => true,
            _ => entry.issuer == key.issuer,
        });
        let listed = entry.and_then(|entry| self.parse(&key.issuer, &entry.jwks_json));
        let (keys_from, keys) = match &key.keys {
            KeySource::Inline(text) => match (self.parse(&key.issuer, text), listed) {
                (Some(own), Some(listed)) => (inline(), Some(own.union(listed))),
                (own, listed) => (inline(), own.or(listed)),
            },
            KeySource::Uri(uri) => (uri.clone(), listed),
            KeySource::Discovery => (discovery(), listed),
        };
        let health = entry.map_or(Health::Down, |entry| entry.health);
        Arc::new(Source::fixed(key.issuer.as_str().into(), keys_from, keys, health))
    }

    /// A source with a task of its own.
    fn network_source(
        &self,
        key: &SourceKey,
        timeout: Duration,
        runtime: &Handle,
        stop: &CancellationToken,
        system: &Arc<OnceCell<Arc<rustls::ClientConfig>>>,
    ) -> Arc<Source> {
        let limits = &self.settings.keys;
        let own = self.settings.providers.iter().find(|own| own.issuer == key.issuer);
        let uri = match (own.and_then(|own| own.jwks_uri.clone()), &key.keys) {
            (Some(uri), _) => Some(uri),
            (None, KeySource::Uri(uri)) => Some(uri.clone()),
            (None, _) => None,
        };
        let keys_from = uri.clone().unwrap_or_else(discovery);
        let client = Client {
            connect_to: own.and_then(|own| own.connect_to),
            ca_file: own.and_then(|own| own.ca_file.clone()),
            limits: GetLimits {
                connect: Duration::from_millis(limits.connect_timeout_ms),
                bytes: limits.document_bytes,
            },
            system: Arc::clone(system),
        };
        let every = Duration::from_secs(limits.discovery_seconds);
        let most = limits.keys_per_document;
        let provider = Provider::new(key.issuer.clone(), uri, client, most, every);
        let disk = self
            .settings
            .key_cache_dir
            .as_deref()
            .map(|folder| DiskCache::new(folder, &key.issuer, &keys_from, limits.document_bytes, most));
        let issuer = key.issuer.as_str().into();
        let source = Arc::new(Source::remote(issuer, keys_from, limits.clone(), stop.child_token()));
        source.allow_timeout(timeout); // Before the task can look at it.
        let health = self.settings.health.clone();
        runtime.spawn(run(Arc::clone(&source), provider, disk, self.checker.clock, health));
        source
    }

    fn parse(&self, issuer: &str, jwks: &str) -> Option<KeySet> {
        match KeySet::parse(jwks.as_bytes(), self.settings.keys.keys_per_document) {
            Ok(keys) => Some(keys),
            Err(error) => {
                tracing::warn!(%issuer, %error, "a jwks of a manifest is refused: its tokens are too");
                None
            }
        }
    }

    fn sources(&self) -> MutexGuard<'_, HashMap<SourceKey, Arc<Source>>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Authenticator {
    /// Tasks end with the authenticator.
    fn drop(&mut self) {
        for source in self.sources().values() {
            source.stop.cancel();
        }
    }
}

impl SourceKey {
    fn of(rule: &JwtRule) -> Self {
        Self { issuer: rule.issuer.clone(), keys: rule.keys.clone() }
    }
}

fn inline() -> String {
    "inline".to_owned()
}

fn discovery() -> String {
    "discovery".to_owned()
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
