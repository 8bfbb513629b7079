//! Durations as manifests write them.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de::Error as _};

/// Longest duration taken: an hour times a year; anything longer is a slip.
const MAX_SECONDS: f64 = 31_536_000.0;

/// A duration such as `10s`, `0.5s`, `1h30m` or `100ms` (Go's `time.ParseDuration`, which Istio's
/// and Gateway API's fields follow; GEP-2257).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ManifestDuration(pub(crate) Duration);

impl<'de> Deserialize<'de> for ManifestDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text).map(Self).ok_or_else(|| {
            D::Error::custom(format!("`{text}` is no duration: write it as `10s`, `1.5s` or `100ms`"))
        })
    }
}

impl ManifestDuration {
    /// `None` for zero, which turns a limit off.
    pub(crate) fn limit(self) -> Option<Duration> {
        (!self.0.is_zero()).then_some(self.0)
    }
}

fn parse(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0.0_f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        seconds += number.parse::<f64>().ok()? * scale(unit)?;
        rest = after;
    }
    (!text.is_empty() && seconds.is_finite() && seconds <= MAX_SECONDS)
        .then(|| Duration::from_secs_f64(seconds))
}

fn scale(unit: &str) -> Option<f64> {
    Some(match unit {
        "ns" => 1e-9,
        "us" | "µs" | "μs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_go_reads_them() {
        let cases = [
            ("10s", Some(10_000)),
            ("0.5s", Some(500)),
            ("1h30m", Some(5_400_000)),
            ("100ms", Some(100)),
            ("0s", Some(0)),
            ("0", Some(0)),
            ("", None),
            ("10", None),
            ("-1s", None),
            ("s", None),
            (".s", None),
            ("1.2.3s", None),
            ("1x", None),
            ("99999999h", None),
        ];
        for (text, wanted) in cases {
            assert_eq!(parse(text), wanted.map(Duration::from_millis), "{text}");
        }
    }
}
