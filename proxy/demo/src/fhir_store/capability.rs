//! The CapabilityStatement: what the store can do, and no more.

use serde_json::{Value, json};

use super::FhirVersion;
use super::{matching, types};

/// The parameters that some type has.
const PARAMETERS: [(&str, &str); 13] = [
    ("_id", "token"),
    ("identifier", "token"),
    ("name", "string"),
    ("family", "string"),
    ("given", "string"),
    ("gender", "token"),
    ("birthdate", "date"),
    ("subject", "reference"),
    ("patient", "reference"),
    ("encounter", "reference"),
    ("status", "token"),
    ("code", "token"),
    ("category", "token"),
];

/// `GET [base]/metadata`.
pub(super) fn statement(version: FhirVersion, base: &str) -> Value {
    let resources: Vec<_> = types::all(version).map(resource).collect();
    json!({
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": "2026-01-01",
        "kind": "instance",
        "software": { "name": "Fhirward demo FHIR store", "version": env!("CARGO_PKG_VERSION") },
        "implementation": { "description": "An in-memory store for trying out", "url": base },
        "fhirVersion": version.number(),
        "format": ["application/fhir+json", "json"],
        "rest": [{
            "mode": "server",
            "resource": resources,
            "interaction": codes(&["transaction", "batch", "history-system"]),
        }],
    })
}

fn resource(kind: &str) -> Value {
    let parameters: Vec<_> = PARAMETERS
        .iter()
        .filter(|(name, _)| matching::kind(kind, name).is_some())
        .map(|(name, of_type)| json!({ "name": name, "type": of_type }))
        .collect();
    json!({
        "type": kind,
        "interaction": codes(&[
            "read", "vread", "update", "delete", "history-instance", "history-type", "create",
            "search-type",
        ]),
        "versioning": "versioned-update",
        "readHistory": true,
        "updateCreate": true,
        "conditionalCreate": true,
        "conditionalRead": "not-match",
        "conditionalUpdate": false,
        "conditionalDelete": "not-supported",
        "searchParam": parameters,
    })
}

fn codes(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json!({ "code": name })).collect()
}
