//! The key sources in use: made for the rules that name them, ended with the last of those.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use policy::istio::{JwtRule, KeySource};
use tokio::{runtime::Handle, sync::OnceCell};
use tokio_util::sync::CancellationToken;

use crate::{
    Clock, Health, IdentitySettings, IssuerStatus,
    keys::KeySet,
    net::{Client, GetLimits},
    rule::Rule,
    source::{DiskCache, Provider, Source, run},
};

/// The system's authorities, loaded when first needed.
type SystemTrust = Arc<OnceCell<Arc<rustls::ClientConfig>>>;

/// Where keys are had.
pub(crate) enum Origin {
    /// From providers, by tasks on this runtime, until this is cancelled.
    Network { runtime: Handle, stop: CancellationToken, system: SystemTrust },
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

/// All sources. One writer at a time; requests come here only with a rule that no snapshot has
/// announced.
pub(crate) struct Sources {
    settings: IdentitySettings,
    clock: Clock,
    origin: Origin,
    all: Mutex<HashMap<SourceKey, Arc<Source>>>,
}

impl Sources {
    pub(crate) fn new(settings: IdentitySettings, clock: Clock, origin: Origin) -> Self {
        Self { settings, clock, origin, all: Mutex::default() }
    }

    /// A rule made ready, with its source.
    pub(crate) fn rule(&self, manifest: &Arc<JwtRule>) -> Arc<Rule> {
        let source = self.source(&mut self.all(), &SourceKey::of(manifest), manifest.timeout);
        Arc::new(Rule::new(Arc::clone(manifest), source))
    }

    /// These rules made ready; sources that none of them names are ended.
    pub(crate) fn follow<'a>(&self, rules: impl Iterator<Item = &'a Arc<JwtRule>>) -> Vec<Arc<Rule>> {
        let mut all = self.all();
        let mut named = HashSet::new();
        let mut ready = Vec::new();
        for manifest in rules {
            let key = SourceKey::of(manifest);
            let source = self.source(&mut all, &key, manifest.timeout);
            named.insert(key);
            ready.push(Arc::new(Rule::new(Arc::clone(manifest), source)));
        }
        all.retain(|key, source| {
            let keep = named.contains(key);
            if !keep {
                source.stop.cancel();
            }
            keep
        });
        ready
    }

    pub(crate) fn statuses(&self, now: i64) -> Vec<IssuerStatus> {
        self.all().values().map(|source| source.status(now)).collect()
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
        system: &SystemTrust,
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
        runtime.spawn(run(Arc::clone(&source), provider, disk, self.clock, health));
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

    fn all(&self) -> MutexGuard<'_, HashMap<SourceKey, Arc<Source>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Sources {
    /// Tasks end with the authenticator.
    fn drop(&mut self) {
        for source in self.all().values() {
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
