//! Newman: runs a Postman collection and counts its assertions.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use xtask::provision::Part;

use super::daemon::{Daemon, run_folder};
use super::error::{RealError, Result};
use super::part;

const RUN_LIMIT: Duration = Duration::from_secs(300);
/// For one request of a collection, in milliseconds.
const REQUEST_LIMIT_MS: &str = "20000";

/// The runner of Postman collections.
#[derive(Debug)]
pub struct Newman;

/// What a run of a collection came to.
#[derive(Debug, Clone)]
pub struct Report {
    /// Assertions that held.
    pub passed: u64,
    /// Assertions that did not hold, and requests and scripts that failed.
    pub failed: u64,
    /// Requests sent.
    pub requests: u64,
    /// One line for each failure: where, and what was expected.
    pub failures: Vec<String>,
    /// What Newman printed.
    pub output: String,
}

impl Newman {
    /// Runs `collection` with an environment file, if any, and variables that win over it.
    ///
    /// # Errors
    /// When Newman is not provisioned, ends without a report, or the run asserts nothing. Assertions
    /// that fail are no error here: they are counted in the report.
    pub async fn run(
        collection: &Path,
        environment: Option<&Path>,
        variables: &[(&str, &str)],
    ) -> Result<Report> {
        let program = part(Part::Newman)?.join("node_modules/newman/bin/newman.js");
        let folder = run_folder("newman")?;
        let report = folder.path().join("report.json");
        let mut command = Command::new("node");
        command.arg(program).arg("run").arg(std::path::absolute(collection)?);
        if let Some(file) = environment {
            command.arg("--environment").arg(std::path::absolute(file)?);
        }
        for (name, value) in variables {
            command.arg("--env-var").arg(format!("{name}={value}"));
        }
        command.args(["--reporters", "cli,json", "--color", "off", "--disable-unicode"]);
        command.args(["--timeout-request", REQUEST_LIMIT_MS]);
        command.arg("--reporter-json-export").arg(&report);
        for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"] {
            command.env_remove(name);
        }
        command.current_dir(folder.path());
        let daemon = Daemon::spawn("newman", &command, &folder.path().join("log"))?;
        let output = daemon.finish(RUN_LIMIT).await?;
        let Ok(json) = fs::read_to_string(&report) else {
            return Err(RealError::Shape(format!("Newman gave no report:\n{output}")));
        };
        let report: Value = serde_json::from_str(&json)
            .map_err(|error| RealError::Shape(format!("Newman's report is no JSON: {error}")))?;
        read(&report, output)
    }
}

fn read(report: &Value, output: String) -> Result<Report> {
    let number = |pointer: &str| {
        let found = report.pointer(pointer).and_then(Value::as_u64);
        found.ok_or_else(|| RealError::Shape(format!("Newman's report has no number at {pointer}")))
    };
    let asserted = number("/run/stats/assertions/total")?;
    let wrong = number("/run/stats/assertions/failed")?;
    let requests = number("/run/stats/requests/total")?;
    let failures: Vec<String> = report
        .pointer("/run/failures")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(failure)
        .collect();
    let failed = wrong.max(failures.len() as u64);
    if asserted == 0 && failed == 0 {
        return Err(RealError::Shape(format!("the collection asserts nothing:\n{output}")));
    }
    Ok(Report { passed: asserted.saturating_sub(wrong), failed, requests, failures, output })
}

fn failure(entry: &Value) -> String {
    let text = |pointer: &str| entry.pointer(pointer).and_then(Value::as_str).unwrap_or("?").to_owned();
    let test = entry.pointer("/error/test").and_then(Value::as_str).unwrap_or("the request");
    format!("{}: {test}: {}", text("/source/name"), text("/error/message"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use serde_json::json;

    fn report(total: u64, failed: u64, failures: &Value) -> Value {
        json!({"run": {
            "stats": {"assertions": {"total": total, "failed": failed}, "requests": {"total": 1}},
            "failures": failures,
        }})
    }

    #[test]
    fn a_run_that_asserts_nothing_is_an_error() {
        assert!(read(&report(0, 0, &json!([])), String::new()).is_err());
    }

    #[test]
    fn a_request_that_cannot_be_sent_counts_as_failed() {
        let refused = json!([{"source": {"name": "get"}, "error": {"message": "ECONNREFUSED"}}]);
        let read = read(&report(2, 0, &refused), String::new()).unwrap();
        assert_eq!((read.passed, read.failed), (2, 1));
        assert_eq!(read.failures, ["get: the request: ECONNREFUSED"]);
    }
}
