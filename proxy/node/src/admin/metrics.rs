//! `/metrics`: the requests' counters, and the states of providers, manifests and limits.

use identity::{Health, IssuerStatus};
use observe::{Exposition, metrics::ExpositionError};

use super::Told;

pub(super) fn page(told: &Told) -> Result<String, ExpositionError> {
    let mut page = Exposition::of(told.recorder.metrics())?;
    issuers(&mut page, &told.authenticator.issuers());
    tokens(&mut page, told);
    manifests(&mut page, told);
    certificates(&mut page, told);
    told.workloads.metrics(&mut page);
    if let Some(capture) = &told.capture {
        super::capture::metrics(&mut page, capture);
    }
    page.gauge(
        "istio_build",
        "Constant 1, labelled with what runs.",
        [(vec![("component", "fhirward".to_owned()), ("tag", env!("CARGO_PKG_VERSION").to_owned())], 1.0)],
    );
    Ok(page.into_text())
}

fn issuers(page: &mut Exposition, issuers: &[IssuerStatus]) {
    let label = |issuer: &IssuerStatus| {
        vec![("issuer", issuer.issuer.clone()), ("keys_from", issuer.keys_from.clone())]
    };
    let mut gauge = |name: &str, help: &str, value: &dyn Fn(&IssuerStatus) -> Option<f64>| {
        page.gauge(name, help, issuers.iter().filter_map(|issuer| Some((label(issuer), value(issuer)?))));
    };
    gauge("fhirward_issuer_up", "1 up, 0.5 degraded, 0 down.", &|issuer| {
        Some(match issuer.health {
            Health::Up => 1.0,
            Health::Degraded => 0.5,
            Health::Down => 0.0,
        })
    });
    gauge("fhirward_jwks_keys", "Usable keys at hand.", &|issuer| Some(count(issuer.keys as u64)));
    gauge(
        "fhirward_jwks_age_seconds",
        "Since the provider last confirmed the keys; absent where it never did.",
        &|issuer| issuer.age_seconds.map(count),
    );
    gauge(
        "fhirward_jwks_from_disk",
        "1 while the keys at hand were read from disk and not confirmed since.",
        &|issuer| Some(f64::from(u8::from(issuer.from_disk))),
    );
    let outcome = |issuer: &IssuerStatus, outcome: &str| {
        let mut labels = label(issuer);
        labels.push(("outcome", outcome.to_owned()));
        labels
    };
    page.counter(
        "fhirward_jwks_fetches_total",
        "Fetches of keys, by outcome.",
        issuers.iter().flat_map(|issuer| {
            [
                (outcome(issuer, "fetched"), count(issuer.counters.fetched)),
                (outcome(issuer, "not_modified"), count(issuer.counters.not_modified)),
                (outcome(issuer, "failed"), count(issuer.counters.failed)),
            ]
        }),
    );
    page.counter(
        "fhirward_jwks_unknown_kid_total",
        "Tokens with an unknown kid: whether the provider was asked.",
        issuers.iter().flat_map(|issuer| {
            [
                (outcome(issuer, "refetched"), count(issuer.counters.kid_refetches)),
                (outcome(issuer, "suppressed"), count(issuer.counters.refetches_suppressed)),
            ]
        }),
    );
}

fn tokens(page: &mut Exposition, told: &Told) {
    let counters = told.authenticator.counters();
    page.counter(
        "fhirward_tokens_verified_total",
        "Tokens accepted, by whether their signature was checked or they were found in the cache.",
        [
            (vec![("by", "signature".to_owned())], count(counters.tokens_verified)),
            (vec![("by", "cache".to_owned())], count(counters.cache_hits)),
        ],
    );
    page.gauge(
        "fhirward_tokens_cached",
        "Verified tokens in the cache.",
        [(Vec::new(), count(counters.cached_tokens))],
    );
    page.counter(
        "fhirward_tokens_rejected_total",
        "Requests refused for their tokens, by reason.",
        counters.rejections.iter().map(|(reason, n)| (vec![("reason", (*reason).to_owned())], count(*n))),
    );
}

fn manifests(page: &mut Exposition, told: &Told) {
    let status = told.status.borrow().clone();
    let mut gauge = |name: &str, help: &str, value: f64| page.gauge(name, help, [(Vec::new(), value)]);
    gauge(
        "fhirward_manifest_problems",
        "Errors in the manifests as they stand; the last good policy holds while any.",
        count(status.problems.len() as u64),
    );
    gauge(
        "fhirward_manifest_warnings",
        "Warnings about the manifests in force.",
        count(status.warnings.len() as u64),
    );
    gauge(
        "fhirward_snapshot_version",
        "Version of the snapshot in force; 0: none yet.",
        count(status.version),
    );
    let objects = |kinds: &std::collections::BTreeMap<String, usize>, used: &str| {
        let sample = |(kind, n): (&String, &usize)| {
            (vec![("kind", kind.clone()), ("used", used.to_owned())], count(*n as u64))
        };
        kinds.iter().map(sample).collect::<Vec<_>>()
    };
    page.gauge(
        "fhirward_objects",
        "Objects of the manifests in force, by kind and by whether anything here uses the kind.",
        objects(&status.used, "true").into_iter().chain(objects(&status.unused, "false")),
    );
    page.counter(
        "fhirward_reloads_total",
        "Changes of the manifests, by outcome.",
        [
            (vec![("outcome", "ok".to_owned())], count(status.reloads_ok)),
            (vec![("outcome", "refused".to_owned())], count(status.reloads_failed)),
        ],
    );
}

fn certificates(page: &mut Exposition, told: &Told) {
    let listener = |name: &String| vec![("listener", name.clone())];
    page.counter(
        "fhirward_certificate_reloads_total",
        "Times a listener's certificate was replaced.",
        told.certificates.iter().map(|(name, tls)| (listener(name), count(tls.status().reloads))),
    );
    page.gauge(
        "fhirward_certificate_problem",
        "1 while a listener's files hold a pair that cannot be used; the old one stays in service.",
        told.certificates
            .iter()
            .map(|(name, tls)| (listener(name), f64::from(u8::from(tls.status().problem.is_some())))),
    );
}

/// Samples are floating point by format.
#[allow(clippy::cast_precision_loss)]
pub(super) fn count(value: u64) -> f64 {
    value as f64
}
