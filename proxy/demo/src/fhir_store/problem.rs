//! Refusals, and the OperationOutcome that says why.

use http::StatusCode;
use serde_json::{Value, json};

/// One refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    /// An issue type (R4 valueset-issue-type).
    pub(super) code: &'static str,
    pub(super) text: String,
    /// The methods that would do, for a 405.
    pub(super) allow: Option<&'static str>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &'static str, text: impl Into<String>) -> Self {
        Self { status, code, text: text.into(), allow: None }
    }

    /// 400: it cannot be understood.
    pub(super) fn invalid(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", text)
    }

    /// 404: no such resource, version, type or operation.
    pub(super) fn not_found(text: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", text)
    }

    /// 405: not by this method.
    pub(super) fn method(allow: &'static str) -> Self {
        let text = "this method is not supported here";
        let plain = Self::new(StatusCode::METHOD_NOT_ALLOWED, "not-supported", text);
        Self { allow: Some(allow), ..plain }
    }

    /// 412: a condition of the request does not hold.
    pub(super) fn condition(text: impl Into<String>) -> Self {
        Self::new(StatusCode::PRECONDITION_FAILED, "conflict", text)
    }

    /// 422: understood, and against a rule.
    pub(super) fn rule(text: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "value", text)
    }

    pub(super) fn outcome(&self) -> Value {
        outcome("error", self.code, &self.text)
    }
}

/// An OperationOutcome of one issue.
pub(super) fn outcome(severity: &str, code: &str, text: &str) -> Value {
    json!({
        "resourceType": "OperationOutcome",
        "issue": [{ "severity": severity, "code": code, "diagnostics": text }],
    })
}
