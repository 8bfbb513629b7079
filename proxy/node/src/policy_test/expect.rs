//! Expectations against what was decided.

use super::{
    format::{Case, Expect, ExpectForwarded, Verdict},
    report::{CaseReport, Forwarded, Mismatch},
};

/// Fills in the mismatches, and whether the case passed.
pub(super) fn hold(case: &Case, report: &mut CaseReport) {
    if let Some(expect) = &case.expect {
        report.mismatches = mismatches(expect, report);
    }
    report.passed = report.mismatches.is_empty();
}

fn mismatches(expect: &Expect, report: &CaseReport) -> Vec<Mismatch> {
    let mut found = Found::default();
    if let Some(verdict) = expect.verdict {
        found.compare("verdict", name(verdict), name(report.verdict));
    }
    if let Some(status) = expect.status {
        found.compare("status", status.to_string(), shown(report.status.map(|status| status.to_string())));
    }
    if let Some(body) = &expect.body {
        found.compare("body", body.clone(), shown(report.body.clone()));
    }
    if let Some(rule) = &expect.rule {
        found.compare("rule", rule.clone(), shown(report.rule.clone()));
    }
    if let Some(reason) = &expect.reason
        && !report.reasons.iter().any(|line| line.contains(reason.as_str()))
    {
        found.differ("reason", format!("…{reason}…"), report.reasons.join(" | "));
    }
    if let Some(forwarded) = &expect.forwarded {
        match &report.forwarded {
            Some(actual) => found.forwarded(forwarded, actual),
            None => {
                found.differ("forwarded", "something reaches the upstream".to_owned(), "nothing".to_owned())
            }
        }
    }
    found.0
}

#[derive(Default)]
struct Found(Vec<Mismatch>);

impl Found {
    fn compare(&mut self, field: &str, expected: impl Into<String>, actual: impl Into<String>) {
        let (expected, actual) = (expected.into(), actual.into());
        if expected != actual {
            self.differ(field, expected, actual);
        }
    }

    fn differ(&mut self, field: &str, expected: String, actual: String) {
        self.0.push(Mismatch { field: field.to_owned(), expected, actual });
    }

    fn forwarded(&mut self, expected: &ExpectForwarded, actual: &Forwarded) {
        if let Some(method) = &expected.method {
            self.compare("forwarded.method", method, &actual.method);
        }
        if let Some(path) = &expected.path {
            self.compare("forwarded.path", path, &actual.path);
        }
        if let Some(body) = &expected.body {
            self.compare("forwarded.body", body, shown(actual.body.clone()));
        }
        // A list of values means the header several times; they are joined as they are reported.
        let mut wanted = std::collections::BTreeMap::<String, Vec<&str>>::new();
        for (name, value) in &expected.headers.0 {
            wanted.entry(name.to_ascii_lowercase()).or_default().push(value);
        }
        for (name, values) in wanted {
            let seen = shown(actual.headers.get(&name).cloned());
            self.compare(&format!("forwarded.headers.{name}"), values.join(", "), seen);
        }
        for name in &expected.absent_headers {
            if let Some(value) = actual.headers.get(&name.to_ascii_lowercase()) {
                self.differ(&format!("forwarded.absentHeaders.{name}"), "absent".to_owned(), value.clone());
            }
        }
    }
}

fn name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allow => "allow",
        Verdict::Deny => "deny",
        Verdict::Drop => "drop",
    }
}

fn shown(value: Option<String>) -> String {
    value.unwrap_or_else(|| "(none)".to_owned())
}
