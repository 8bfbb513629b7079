//! Istio's twenty-five labels (istio.io, "Istio Standard Metrics"; order as Istio writes them).

use std::{borrow::Cow, hash::Hasher, sync::Arc};

use super::feed;
use crate::{
    Record,
    record::{Party, Protocol, Reporter, WorkloadLabels},
};

pub(super) const NAMES: [&str; 25] = [
    "reporter",
    "source_workload",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_canonical_service",
    "source_canonical_revision",
    "source_cluster",
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_cluster",
    "destination_service",
    "destination_service_name",
    "destination_service_namespace",
    "request_protocol",
    "response_code",
    "grpc_response_status",
    "response_flags",
    "connection_security_policy",
];

pub(super) type Values<'a> = [Cow<'a, str>; 25];

/// Of them, those that TCP has not.
const OF_REQUESTS: [&str; 2] = ["response_code", "grpc_response_status"];

/// The labels of TCP connections.
pub(super) fn tcp_names() -> Vec<&'static str> {
    NAMES.into_iter().filter(|name| !OF_REQUESTS.contains(name)).collect()
}

/// Their values.
pub(super) fn tcp_values<'a>(values: &'a Values<'_>) -> Vec<&'a str> {
    let named = NAMES.iter().zip(values);
    named.filter(|(name, _)| !OF_REQUESTS.contains(name)).map(|(_, value)| value.as_ref()).collect()
}

const UNKNOWN: &str = "unknown";

/// The values of a record: `unknown` where not known, never absent.
pub(super) fn values<'a>(record: &'a Record, reporter: Reporter, cluster: &'a str) -> Values<'a> {
    let [s1, s2, s3, s4, s5, s6, s7, s8] = party(&record.source, cluster);
    let [d1, d2, d3, d4, d5, d6, d7, d8] = party(&record.destination, cluster);
    let (host, name, namespace) = service(record);
    let [protocol, code, grpc, flags, security] = exchange(record, reporter);
    let reporter = Cow::Borrowed(match reporter {
        Reporter::Destination => "destination",
        Reporter::Source => "source",
    });
    [
        reporter, s1, s2, s3, s4, s5, s6, s7, s8, d1, d2, d3, d4, d5, d6, d7, d8, host, name, namespace,
        protocol, code, grpc, flags, security,
    ]
}

/// The values with every name `unknown`: where there is no more room for names.
pub(super) fn nameless<'a>(record: &'a Record, reporter: Reporter, cluster: &'a str) -> Values<'a> {
    let mut values = values(record, reporter, cluster);
    for (value, label) in values.iter_mut().zip(NAMES) {
        if label.starts_with("source_") || label.starts_with("destination_") {
            *value = Cow::Borrowed(UNKNOWN);
        }
    }
    values
}

/// Everything of a record that decides on its label values.
pub(super) fn hash(record: &Record, reporter: Reporter, state: &mut impl Hasher) {
    for party in [&record.source, &record.destination] {
        feed(state, &party.workload);
        feed(state, &party.principal);
    }
    feed(state, &record.service.host);
    feed(state, &record.service.name);
    feed(state, &record.service.namespace);
    feed(state, &record.status);
    feed(state, &record.grpc_status);
    feed(state, &record.flags);
    feed(state, &record.mutual_tls);
    feed(state, &(record.protocol as u8));
    feed(state, &(reporter as u8));
}

fn party<'a>(party: &'a Party, cluster: &'a str) -> [Cow<'a, str>; 8] {
    let principal = party.principal.as_deref().map_or(Cow::Borrowed(UNKNOWN), principal);
    let Some(labels) = party.workload.as_deref() else {
        let unknown = || Cow::Borrowed(UNKNOWN);
        // Kiali drops a series whose cluster is `unknown` while its namespace is known; of neither
        // being known it takes no offence.
        let revision = Cow::Borrowed("latest");
        return [unknown(), unknown(), principal, unknown(), unknown(), unknown(), revision, unknown()];
    };
    let WorkloadLabels { workload, namespace, app, version, canonical_service, canonical_revision } = labels;
    [
        known(workload),
        known(namespace),
        principal,
        known(app),
        known(version),
        known(canonical_service),
        if canonical_revision.is_empty() {
            Cow::Borrowed("latest")
        } else {
            Cow::Borrowed(canonical_revision)
        },
        Cow::Borrowed(cluster),
    ]
}

fn known(text: &str) -> Cow<'_, str> {
    Cow::Borrowed(if text.is_empty() { UNKNOWN } else { text })
}

/// With its scheme, as Istio writes it.
fn principal(id: &str) -> Cow<'_, str> {
    if id.starts_with("spiffe://") { Cow::Borrowed(id) } else { Cow::Owned(format!("spiffe://{id}")) }
}

fn service(record: &Record) -> (Cow<'_, str>, Cow<'_, str>, Cow<'_, str>) {
    let text = |value: &'_ Option<Arc<str>>| -> Option<String> { value.as_deref().map(str::to_owned) };
    let owned = |value: Option<String>| value.map_or(Cow::Borrowed(UNKNOWN), Cow::Owned);
    let host = text(&record.service.host);
    let name = text(&record.service.name).or_else(|| host.clone());
    (owned(host), owned(name), owned(text(&record.service.namespace)))
}

fn exchange(record: &Record, reporter: Reporter) -> [Cow<'_, str>; 5] {
    let protocol = match record.protocol {
        Protocol::Http => "http",
        Protocol::Grpc => "grpc",
        Protocol::Tcp => "tcp",
    };
    let grpc = match (record.protocol, record.grpc_status) {
        (Protocol::Grpc, Some(status)) => Cow::Owned(status.to_string()),
        _ => Cow::Borrowed(""),
    };
    let security = match (reporter, record.mutual_tls) {
        (Reporter::Source, _) => UNKNOWN,
        (Reporter::Destination, true) => "mutual_tls",
        (Reporter::Destination, false) => "none",
    };
    [
        Cow::Borrowed(protocol),
        Cow::Owned(record.status.unwrap_or(0).to_string()),
        grpc,
        Cow::Borrowed(if record.flags.is_empty() { "-" } else { record.flags }),
        Cow::Borrowed(security),
    ]
}
