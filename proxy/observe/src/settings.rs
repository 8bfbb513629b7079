//! Settings of this room.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

/// `observe:` of the settings file: access log, metrics.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ObserveSettings {
    /// The access log.
    pub access_log: AccessLogSettings,
    /// Sets of label values kept in the metrics; requests beyond it are counted under `unknown`
    /// names, so that made-up hosts cannot fill the memory.
    pub max_series: usize,
    /// `source_cluster` and `destination_cluster`; Kiali knows its own cluster as `Kubernetes`.
    pub cluster: String,
}

impl Default for ObserveSettings {
    fn default() -> Self {
        Self {
            access_log: AccessLogSettings::default(),
            max_series: 10_000,
            cluster: "Kubernetes".to_owned(),
        }
    }
}

/// `observe.accessLog:` one JSON object a request.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AccessLogSettings {
    /// Write it at all.
    pub enabled: bool,
    /// File to append to; standard output where not given.
    pub file: Option<PathBuf>,
    /// How much of the path is written.
    pub path: PathDetail,
    /// Write query strings: they hold search values, so patient data. Off unless asked for.
    pub query: bool,
    /// Write the steps behind a denial (`reasons`): without paths, header values, subjects and
    /// claims that name somebody (`fhirward explain` shows those).
    pub reasons: bool,
    /// Lines waiting for the writer; further ones are dropped and counted.
    pub queue: usize,
}

impl Default for AccessLogSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            file: None,
            path: PathDetail::Redacted,
            query: false,
            reasons: true,
            queue: 8_192,
        }
    }
}

/// How much of a path is written to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PathDetail {
    /// Resource types, operations and other known words stay; ids become `*`.
    Redacted,
    /// The whole path: logical ids of patients are written.
    Full,
    /// Nothing.
    None,
}
