//! When another attempt follows (Envoy's `retry_on` and its back-off), and when a connection that
//! the upstream had closed meanwhile is simply replaced.

use std::time::Duration;

use mesh::routing::{RetryOn, RetryPolicy};
use tokio::time::Instant;

use super::{Answered, attempt::Failure};
use crate::{
    dice::Dice,
    record,
    refusal::{TunnelFault, UpstreamFault},
};

/// Envoy's default back-off: the base, and ten times as much at most.
const BASE: Duration = Duration::from_millis(25);
const MOST: Duration = Duration::from_millis(250);
/// `CANCELLED` and `UNAVAILABLE` (grpc/doc/statuscodes.md).
const GRPC_RETRIABLE: [u16; 2] = [1, 14];

/// How another attempt follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retry {
    /// At once, not counted: the connection was stale.
    Replace,
    /// After a pause, counted.
    Backoff,
}

pub(super) fn after_failure(failure: &Failure, policy: Option<&RetryPolicy>, made: u32) -> Option<Retry> {
    if failure.stale {
        return Some(Retry::Replace);
    }
    let policy = policy.filter(|policy| made < policy.attempts)?;
    let on = &policy.on;
    let any_reset = on.reset || on.gateway_error || on.server_error;
    let wanted = match failure.fault {
        // Nothing of the request has left.
        UpstreamFault::ConnectFailed
        | UpstreamFault::ConnectTimeout
        | UpstreamFault::Tunnel(TunnelFault::Closed | TunnelFault::Silent | TunnelFault::Unreached) => {
            any_reset || on.connect_failure
        }
        UpstreamFault::ClosedBeforeHead if failure.refused => any_reset || on.connect_failure,
        UpstreamFault::ClosedBeforeHead | UpstreamFault::Protocol | UpstreamFault::Timeout => any_reset,
        // More of what is too much already.
        UpstreamFault::Overflow => false,
        // Nobody is believed more for being asked again.
        UpstreamFault::Tunnel(_) => false,
    };
    wanted.then_some(Retry::Backoff)
}

pub(super) fn after_response(answered: &Answered, policy: Option<&RetryPolicy>, made: u32) -> Option<Retry> {
    let policy = policy.filter(|policy| made < policy.attempts)?;
    let Answered::Response { response, .. } = answered else { return None };
    let grpc = || record::grpc_status(response.headers());
    let wanted = status_wanted(&policy.on, response.status().as_u16())
        || policy.on.connect_failure && grpc().is_some_and(|status| GRPC_RETRIABLE.contains(&status));
    wanted.then_some(Retry::Backoff)
}

fn status_wanted(on: &RetryOn, status: u16) -> bool {
    on.server_error && (500..600).contains(&status)
        || on.gateway_error && (502..=504).contains(&status)
        || on.statuses.contains(&status)
}

/// A random pause, up to `BASE * (2^n - 1)` before the n-th retry (Envoy's
/// `JitteredExponentialBackOffStrategy`).
pub(super) async fn back_off(made: u32, dice: &Dice, deadline: Instant) {
    let range = BASE.saturating_mul((1_u32 << made.min(8)).saturating_sub(1)).min(MOST);
    let micros = u64::try_from(range.as_micros()).unwrap_or(u64::MAX).max(1);
    let pause = Duration::from_micros(dice.throw() % micros);
    tokio::time::sleep_until((Instant::now() + pause).min(deadline)).await;
}
