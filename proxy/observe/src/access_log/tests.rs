#![allow(clippy::unwrap_used)]

use std::time::Duration;

use super::line;
use crate::{AccessLogSettings, PathDetail, Record};

fn record() -> Record {
    Record {
        method: "GET".to_owned(),
        path: "/Patient/alice".to_owned(),
        query: Some("name=Smith".to_owned()),
        status: Some(403),
        duration: Duration::from_micros(1_234),
        token: "ok",
        steps: vec![policy::Step {
            subject: "ns[a]-policy[b]-rule[0]".to_owned(),
            outcome: policy::Outcome::NotMatched,
            detail: r#"path is "/Patient/alice""#.to_owned(),
            redacted: Some("path (not shown)".to_owned()),
            place: None,
            depth: 1,
        }],
        ..Record::default()
    }
}

fn written(format: &AccessLogSettings) -> serde_json::Value {
    let mut out = Vec::new();
    line::write(&mut out, &record(), format).unwrap();
    assert_eq!(out.last(), Some(&b'\n'));
    serde_json::from_slice(&out).unwrap()
}

#[test]
fn identifiers_and_search_values_stay_out_by_default() {
    let line = written(&AccessLogSettings::default());
    assert_eq!(line["path"], "/Patient/*");
    assert_eq!(line.get("query"), None);
    assert!(!line.to_string().contains("alice") && !line.to_string().contains("Smith"));
    assert_eq!(line["status"], 403);
    assert_eq!(line["durationMs"], 1.234);
}

#[test]
fn an_operator_may_ask_for_them() {
    let format = AccessLogSettings { path: PathDetail::Full, query: true, ..AccessLogSettings::default() };
    let line = written(&format);
    assert_eq!(line["path"], "/Patient/alice");
    assert_eq!(line["query"], "name=Smith");
    assert_eq!(line["reasons"][0], "  ns[a]-policy[b]-rule[0]: no match: path (not shown)");
}

#[test]
fn a_full_queue_drops_and_says_so_and_what_fitted_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("access.log");
    let format = AccessLogSettings { file: Some(file.clone()), queue: 1, ..AccessLogSettings::default() };
    let log = super::AccessLog::open(&format).unwrap();
    let accepted = (0..5_000).filter(|_| log.offer(record())).count();
    drop(log);
    assert!(accepted >= 1);
    assert_eq!(std::fs::read_to_string(file).unwrap().lines().count(), accepted);
}
