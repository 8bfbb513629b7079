//! What a run of PolicyTest files printed: text for people, JSON and JUnit XML for programs.

use std::fmt::Write as _;

use serde::Serialize;

use super::format::Verdict;

/// A whole run.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// One a file.
    pub tests: Vec<TestReport>,
    /// Cases that held.
    pub passed: usize,
    /// Cases that did not.
    pub failed: usize,
}

/// One file.
#[derive(Debug, Serialize)]
pub struct TestReport {
    /// File as given.
    pub file: String,
    /// `metadata.name`
    pub name: String,
    /// In the order of the file.
    pub cases: Vec<CaseReport>,
}

/// One case: what was decided, and where it differs from what was expected.
#[derive(Debug, Serialize)]
pub struct CaseReport {
    /// Name.
    pub name: String,
    /// Whether every expectation held.
    pub passed: bool,
    /// What was decided.
    pub verdict: Verdict,
    /// What the client sees.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What the client sees.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The rule that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The explanation.
    pub reasons: Vec<String>,
    /// What reached the upstream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forwarded: Option<Forwarded>,
    /// Expectations that did not hold.
    pub mismatches: Vec<Mismatch>,
}

/// What reached the upstream.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Forwarded {
    /// Method.
    pub method: String,
    /// Request target.
    pub path: String,
    /// Headers, lower case; repeated ones joined by `, `.
    pub headers: std::collections::BTreeMap<String, String>,
    /// Body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

/// One expectation that did not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mismatch {
    /// Field of `expect`.
    pub field: String,
    /// As the file says.
    pub expected: String,
    /// As it was.
    pub actual: String,
}

impl Report {
    /// Adds a file's report and counts its cases.
    pub fn add(&mut self, test: TestReport) {
        let passed = test.cases.iter().filter(|case| case.passed).count();
        self.passed += passed;
        self.failed += test.cases.len() - passed;
        self.tests.push(test);
    }

    /// One line a case; failures with expected and actual, and the explanation below.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        for test in &self.tests {
            let _ = writeln!(out, "{} ({})", test.file, test.name);
            for case in &test.cases {
                case.write_text(&mut out);
            }
        }
        let _ = writeln!(out, "{} passed, {} failed", self.passed, self.failed);
        out
    }

    /// One JSON object.
    #[must_use]
    pub fn json(&self) -> String {
        // Plain strings and numbers always serialise.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// JUnit XML, as CI systems read it.
    #[must_use]
    pub fn junit(&self) -> String {
        let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        let total = self.passed + self.failed;
        let _ = writeln!(out, "<testsuites tests=\"{total}\" failures=\"{}\">", self.failed);
        for test in &self.tests {
            let failures = test.cases.iter().filter(|case| !case.passed).count();
            let _ = writeln!(
                out,
                "  <testsuite name=\"{}\" file=\"{}\" tests=\"{}\" failures=\"{failures}\">",
                xml(&test.name),
                xml(&test.file),
                test.cases.len(),
            );
            for case in &test.cases {
                case.write_junit(&mut out, &test.name);
            }
            out.push_str("  </testsuite>\n");
        }
        out.push_str("</testsuites>\n");
        out
    }
}

impl CaseReport {
    fn write_text(&self, out: &mut String) {
        let mark = if self.passed { "ok  " } else { "FAIL" };
        let verdict = match self.verdict {
            Verdict::Allow => "allow",
            Verdict::Deny => "deny",
            Verdict::Drop => "drop",
        };
        let status = self.status.map_or_else(String::new, |status| format!(" {status}"));
        let rule = self.rule.as_deref().map_or_else(String::new, |rule| format!(" by {rule}"));
        let _ = writeln!(out, "  {mark} {}: {verdict}{status}{rule}", self.name);
        if self.passed {
            return;
        }
        for mismatch in &self.mismatches {
            let _ = writeln!(out, "       {}", mismatch.field);
            let _ = writeln!(out, "         expected: {}", mismatch.expected);
            let _ = writeln!(out, "         actual:   {}", mismatch.actual);
        }
        out.push_str("       because\n");
        for reason in &self.reasons {
            let _ = writeln!(out, "         {reason}");
        }
    }

    fn write_junit(&self, out: &mut String, test: &str) {
        let _ = write!(out, "    <testcase classname=\"{}\" name=\"{}\"", xml(test), xml(&self.name));
        if self.passed {
            out.push_str("/>\n");
            return;
        }
        let difference = |mismatch: &Mismatch| {
            format!("{}: expected {}, actual {}", mismatch.field, mismatch.expected, mismatch.actual)
        };
        let message: Vec<String> = self.mismatches.iter().map(difference).collect();
        let _ = writeln!(
            out,
            "><failure message=\"{}\">{}</failure></testcase>",
            xml(&message.join("; ")),
            xml(&self.reasons.join("\n")),
        );
    }
}

/// Escapes text for XML; characters XML 1.0 cannot hold become `?`.
fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(character),
            control if control.is_control() => out.push('?'),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::default();
        report.add(TestReport {
            file: "a.yaml".to_owned(),
            name: "a & b".to_owned(),
            cases: vec![CaseReport {
                name: "x < y".to_owned(),
                passed: false,
                verdict: Verdict::Deny,
                status: Some(403),
                body: None,
                rule: None,
                reasons: vec!["because \"this\"".to_owned()],
                forwarded: None,
                mismatches: vec![Mismatch {
                    field: "status".to_owned(),
                    expected: "200".to_owned(),
                    actual: "403".to_owned(),
                }],
            }],
        });
        report
    }

    #[test]
    fn junit_is_escaped() {
        let xml = report().junit();
        assert!(xml.contains("name=\"a &amp; b\"") && xml.contains("x &lt; y"), "{xml}");
        assert!(xml.contains("status: expected 200, actual 403"), "{xml}");
    }

    #[test]
    fn fields_without_a_value_are_absent_in_json() {
        let json = report().json();
        assert!(!json.contains("\"body\"") && !json.contains("\"rule\""), "{json}");
        assert!(json.ends_with("\"passed\":0,\"failed\":1}"), "{json}");
    }

    #[test]
    fn text_shows_expected_and_actual_side_by_side() {
        let text = report().text();
        assert!(text.contains("FAIL x < y: deny 403") && text.contains("actual:   403"), "{text}");
        assert!(text.ends_with("0 passed, 1 failed\n"), "{text}");
    }
}
