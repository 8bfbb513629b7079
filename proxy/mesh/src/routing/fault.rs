//! Faults that a route injects: delays and aborts, by percentage.
//!
//! Source: Envoy's fault filter as istiod fills it in (TranslateFault): without a percentage no
//! request is hit; the delay comes first.

use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;

use super::duration::ManifestDuration;

/// Longest injected delay.
const MAX_DELAY: Duration = Duration::from_secs(3600);
/// Percentages are kept in millionths.
const WHOLE: u64 = 1_000_000;

/// VirtualService's `fault`, as written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct FaultSpec {
    delay: Option<DelaySpec>,
    abort: Option<AbortSpec>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct DelaySpec {
    fixed_delay: Option<ManifestDuration>,
    exponential_delay: Option<ManifestDuration>,
    percentage: Option<PercentSpec>,
    percent: Option<u32>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct AbortSpec {
    http_status: Option<u16>,
    grpc_status: Option<String>,
    http2_error: Option<String>,
    percentage: Option<PercentSpec>,
}

/// `{value: 12.5}`.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct PercentSpec {
    value: f64,
}

/// A fault, checked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fault {
    delay: Option<(Duration, u64)>,
    abort: Option<(StatusCode, u64)>,
}

impl FaultSpec {
    pub(crate) fn compile(&self) -> Result<Fault, String> {
        if self.delay.is_none() && self.abort.is_none() {
            return Err("`delay` or `abort` is needed".to_owned());
        }
        Ok(Fault {
            delay: self.delay.as_ref().map(DelaySpec::compile).transpose()?,
            abort: self.abort.as_ref().map(AbortSpec::compile).transpose()?,
        })
    }
}

impl DelaySpec {
    fn compile(&self) -> Result<(Duration, u64), String> {
        if self.exponential_delay.is_some() {
            return Err("`exponentialDelay` is not supported".to_owned());
        }
        let delay = self.fixed_delay.ok_or("`fixedDelay` is needed")?.0;
        if delay > MAX_DELAY {
            return Err(format!("a delay has at most {} seconds", MAX_DELAY.as_secs()));
        }
        let percent = match (self.percentage, self.percent) {
            (Some(percentage), _) => percentage.millionths()?,
            (None, percent) => PercentSpec { value: percent.unwrap_or(0).into() }.millionths()?,
        };
        Ok((delay, percent))
    }
}

impl AbortSpec {
    fn compile(&self) -> Result<(StatusCode, u64), String> {
        if self.grpc_status.is_some() || self.http2_error.is_some() {
            return Err("only `httpStatus` aborts are supported".to_owned());
        }
        let status = self.http_status.ok_or("`httpStatus` is needed")?;
        let status = StatusCode::from_u16(status)
            .ok()
            .filter(|status| (200..600).contains(&status.as_u16()))
            .ok_or_else(|| format!("{status} is no status from 200 to 599"))?;
        Ok((status, self.percentage.unwrap_or_default().millionths()?))
    }
}

impl PercentSpec {
    fn millionths(self) -> Result<u64, String> {
        if !(0.0..=100.0).contains(&self.value) {
            return Err(format!("{} is no percentage from 0 to 100", self.value));
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 0 to 1,000,000
        Ok((self.value * 10_000.0) as u64)
    }
}

impl Fault {
    /// The delay that hits this request.
    pub(crate) fn delay(&self, dice: u64) -> Option<Duration> {
        hits(self.delay, dice, 2)
    }

    /// The abort that hits this request.
    pub(crate) fn abort(&self, dice: u64) -> Option<StatusCode> {
        hits(self.abort, dice, 3)
    }
}

fn hits<T>(fault: Option<(T, u64)>, dice: u64, salt: u64) -> Option<T> {
    fault.filter(|(_, percent)| roll(dice, salt) % WHOLE < *percent).map(|(what, _)| what)
}

/// An independent random number for each use (`salt`) of one request's dice: SplitMix64.
pub(crate) fn roll(dice: u64, salt: u64) -> u64 {
    let mut mixed = dice.wrapping_add(salt.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
