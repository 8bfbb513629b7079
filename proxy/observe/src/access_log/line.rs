//! One record as one line of JSON.

use std::io::{self, Write};

use serde::Serialize;

use crate::{
    AccessLogSettings, PathDetail, Record,
    record::{Party, Protocol, Reporter},
    redact,
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    time: String,
    request_id: &'a str,
    snapshot: u64,
    reporter: &'static str,
    source: Side<'a>,
    destination: Side<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a str>,
    protocol: &'static str,
    http_version: &'static str,
    method: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    query: Option<&'a str>,
    authority: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    interaction: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_type: Option<&'a str>,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    grpc_status: Option<u16>,
    flags: &'a str,
    details: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    audited: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dry_run: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<String>,
    token: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<String>,
    mutual_tls: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    from_kernel: bool,
    duration_ms: f64,
    decided_after_ms: f64,
    request_bytes: u64,
    response_bytes: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Side<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workload: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    principal: Option<&'a str>,
}

impl<'a> Side<'a> {
    fn of(party: &'a Party) -> Self {
        Self {
            address: party.address.map(|address| address.to_string()),
            workload: party
                .workload
                .as_ref()
                .map(|labels| format!("{}/{}", labels.namespace, labels.workload)),
            principal: party.principal.as_deref(),
        }
    }
}

/// Writes the line. Control characters of hostile requests are escaped by JSON itself.
pub(super) fn write(sink: &mut impl Write, record: &Record, format: &AccessLogSettings) -> io::Result<()> {
    serde_json::to_writer(&mut *sink, &line(record, format))?;
    sink.write_all(b"\n")
}

fn line<'a>(record: &'a Record, format: &AccessLogSettings) -> Line<'a> {
    let (verdict, rule, audited, dry_run) = decided(record);
    Line {
        time: jiff::Timestamp::now().to_string(),
        request_id: &record.request_id,
        snapshot: record.snapshot,
        reporter: match record.reporter {
            Reporter::Destination => "destination",
            Reporter::Source => "source",
        },
        source: Side::of(&record.source),
        destination: Side::of(&record.destination),
        service: record.service.host.as_deref(),
        protocol: match record.protocol {
            Protocol::Http => "http",
            Protocol::Grpc => "grpc",
            Protocol::Tcp => "tcp",
        },
        http_version: record.http_version,
        method: &record.method,
        path: path(record, format),
        query: record.query.as_deref().filter(|_| format.query),
        authority: &record.authority,
        interaction: record.interaction.map(|(name, _)| name),
        resource_type: record.interaction.and_then(|(_, kind)| kind),
        // Envoy's access log writes 0 where no answer was given.
        status: record.status.unwrap_or(0),
        grpc_status: record.grpc_status,
        flags: if record.flags.is_empty() { "-" } else { record.flags },
        details: &record.details,
        refused: record.refused,
        verdict,
        rule,
        audited,
        dry_run,
        reasons: reasons(record, format),
        token: record.token,
        issuer: record.issuer.as_deref(),
        route: record.route.as_deref(),
        upstream: record.upstream.map(|address| address.to_string()),
        mutual_tls: record.mutual_tls,
        from_kernel: record.from_kernel,
        duration_ms: milliseconds(record.duration),
        decided_after_ms: milliseconds(record.decided_after),
        request_bytes: record.request_bytes,
        response_bytes: record.response_bytes,
    }
}

type Decided<'a> = (Option<&'static str>, Option<&'a str>, Vec<&'a str>, Option<&'static str>);

fn decided(record: &Record) -> Decided<'_> {
    let Some(decision) = &record.decision else { return (None, None, Vec::new(), None) };
    let verdict = match decision.verdict {
        policy::Verdict::Allow => "allow",
        policy::Verdict::Deny => "deny",
    };
    let audited = decision.audited.iter().map(AsRef::as_ref).collect();
    let dry_run = decision
        .dry_run
        .as_ref()
        .map(|dry| if dry.denied_by.is_some() || matches!(dry.allow, Some(None)) { "deny" } else { "allow" });
    (Some(verdict), decision.rule.as_deref(), audited, dry_run)
}

fn path(record: &Record, format: &AccessLogSettings) -> Option<String> {
    match format.path {
        PathDetail::Full => Some(record.path.clone()),
        PathDetail::Redacted => Some(redact::path(&record.path)),
        PathDetail::None => None,
    }
}

fn reasons(record: &Record, format: &AccessLogSettings) -> Vec<String> {
    if !format.reasons {
        return Vec::new();
    }
    record.steps.iter().map(|step| step.for_log().to_string()).collect()
}

fn milliseconds(duration: std::time::Duration) -> f64 {
    // Three decimals are enough to read, and keep lines short.
    (duration.as_secs_f64() * 1_000_000.0).round() / 1_000.0
}
