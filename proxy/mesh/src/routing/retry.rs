//! Retries of a route.
//!
//! Source: pilot/pkg/networking/core/route/retry of istio/istio: two attempts by default, on what
//! certainly did not reach the application (503 answers are no longer among them: release note 50506).

use std::time::Duration;

use serde::Deserialize;

use super::{RetryOn, RetryPolicy, duration::ManifestDuration};

/// Attempts beside the first, where a route does not say.
const DEFAULT_ATTEMPTS: u32 = 2;
/// Most attempts beside the first.
const MAX_ATTEMPTS: u32 = 100;

/// VirtualService's `retries`, as written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct RetrySpec {
    attempts: u32,
    per_try_timeout: Option<ManifestDuration>,
    retry_on: Option<String>,
    /// Several endpoints of a locality or priority are not told apart here.
    #[serde(rename = "retryRemoteLocalities")]
    _remote_localities: Option<bool>,
    #[serde(rename = "retryIgnorePreviousHosts")]
    _ignore_previous_hosts: Option<bool>,
    /// The data plane's own backoff holds.
    #[serde(rename = "backoff")]
    _backoff: Option<ManifestDuration>,
}

/// What istiod gives a route that says nothing.
pub(crate) fn default_policy() -> RetryPolicy {
    RetryPolicy {
        attempts: DEFAULT_ATTEMPTS,
        per_try_timeout: None,
        on: RetryOn { connect_failure: true, ..RetryOn::default() },
    }
}

impl RetrySpec {
    pub(crate) fn compile(&self) -> Result<RetryPolicy, String> {
        let per_try = self.per_try_timeout.and_then(ManifestDuration::limit);
        policy(self.attempts, per_try, self.retry_on.as_deref().unwrap_or_default())
    }
}

/// A policy of so many attempts on these conditions (Envoy's `retry_on`, and status codes);
/// the default ones where none are given. No attempts: no retries.
pub(crate) fn policy(
    attempts: u32,
    per_try_timeout: Option<Duration>,
    conditions: &str,
) -> Result<RetryPolicy, String> {
    if attempts > MAX_ATTEMPTS {
        return Err(format!("{attempts} attempts, at most {MAX_ATTEMPTS}"));
    }
    let mut on = RetryOn::default();
    let mut given = conditions.split(',').map(str::trim).filter(|name| !name.is_empty()).peekable();
    if given.peek().is_none() {
        on = default_policy().on;
    }
    for name in given {
        add(&mut on, name)?;
    }
    Ok(RetryPolicy { attempts, per_try_timeout, on })
}

fn add(on: &mut RetryOn, name: &str) -> Result<(), String> {
    match name {
        "connect-failure" | "refused-stream" | "unavailable" | "cancelled" | "reset-before-request" => {
            on.connect_failure = true;
        }
        "reset" | "http3-post-connect-failure" => on.reset = true,
        // Both include an upstream that does not answer at all.
        "gateway-error" => (on.gateway_error, on.connect_failure, on.reset) = (true, true, true),
        "5xx" => (on.server_error, on.connect_failure, on.reset) = (true, true, true),
        "retriable-4xx" => on.statuses.push(409),
        // Their lists are given beside them (codes), or cannot be (headers, gRPC's own codes).
        "retriable-status-codes" | "retriable-headers" | "envoy-ratelimited" => {}
        "deadline-exceeded" | "internal" | "resource-exhausted" => {}
        code => match code.parse::<u16>() {
            Ok(status) if (100..600).contains(&status) => on.statuses.push(status),
            _ => return Err(format!("`{name}` is no condition to retry on")),
        },
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn conditions_read_as_istiod_reads_them() {
        let default = policy(3, None, "").unwrap();
        assert_eq!((default.attempts, default.on), (3, default_policy().on));
        let named = policy(1, None, "gateway-error, 429").unwrap().on;
        assert!(named.gateway_error && named.connect_failure && named.reset && !named.server_error);
        assert_eq!(named.statuses, [429]);
        assert_eq!(policy(0, None, "").unwrap().attempts, 0);
        assert!(policy(1, None, "5xxx").is_err());
        assert!(policy(1000, None, "").is_err());
    }
}
