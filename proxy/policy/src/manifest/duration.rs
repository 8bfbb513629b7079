//! Durations as Kubernetes and Istio write them.

use std::time::Duration;

/// Nanoseconds of each unit; the longer spelling of those that share a beginning comes first.
const UNITS: &[(&str, u64)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Parses a duration of Go's `time.ParseDuration` (`5s`, `100ms`, `1h30m`, `1.5s`, `0`); `None`
/// for anything else, negative durations and those beyond 292 years (Go's own limit).
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanoseconds: u64 = 0;
    while !rest.is_empty() {
        let (number, after) = split_while(rest, |c| c.is_ascii_digit() || c == '.');
        let (unit, next) = split_while(after, |c| !(c.is_ascii_digit() || c == '.'));
        let scale = UNITS.iter().find(|(name, _)| *name == unit)?.1;
        nanoseconds = nanoseconds.checked_add(scaled(number, scale)?)?;
        rest = next;
    }
    i64::try_from(nanoseconds).ok()?;
    Some(Duration::from_nanos(nanoseconds))
}

fn split_while(text: &str, keep: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !keep(c)).unwrap_or(text.len()))
}

/// `1.5` of a unit, in whole nanoseconds, rounded down.
fn scaled(number: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let mut total = match whole {
        "" => 0,
        _ => whole.parse::<u64>().ok()?.checked_mul(scale)?,
    };
    // Eighteen digits fit a u64; the rest is below a nanosecond.
    let digits: String = fraction.chars().take(18).collect();
    if !digits.is_empty() {
        let part = u128::from(digits.parse::<u64>().ok()?) * u128::from(scale);
        let divisor = 10_u128.pow(u32::try_from(digits.len()).ok()?);
        total = total.checked_add(u64::try_from(part / divisor).ok()?)?;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        let cases = [
            ("5s", Some(5_000_000_000)),
            ("100ms", Some(100_000_000)),
            ("1h30m", Some(5_400_000_000_000)),
            ("1.5s", Some(1_500_000_000)),
            (".5s", Some(500_000_000)),
            ("5.s", Some(5_000_000_000)),
            ("+1us", Some(1_000)),
            ("1µs", Some(1_000)),
            ("0", Some(0)),
            ("0.0000000000000000000000001h", Some(0)),
            ("", None),
            ("+", None),
            ("5", None),
            ("s", None),
            (".s", None),
            ("-5s", None),
            ("5 s", None),
            ("1.2.3s", None),
            ("5d", None),
            ("99999999999h", None),
            ("99999999999999999999s", None),
        ];
        for (text, wanted) in cases {
            assert_eq!(parse_duration(text), wanted.map(Duration::from_nanos), "{text}");
        }
    }
}
