//! What a plain scalar means, the way kubectl reads it.
//!
//! kubectl reads YAML through sigs.k8s.io/yaml, which resolves scalars as go-yaml v2 does: YAML 1.1
//! booleans (`yes`, `on`, `y`), numbers with underscores and leading-zero octals.

/// A plain scalar, resolved.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Resolved {
    Null,
    Bool(bool),
    Integer(i64),
    Unsigned(u64),
    Float(f64),
    Text,
}

/// Resolves the text of a plain scalar.
pub(super) fn resolve(text: &str) -> Resolved {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Resolved::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "true" | "True" | "TRUE" => {
            return Resolved::Bool(true);
        }
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" | "false" | "False" | "FALSE" => {
            return Resolved::Bool(false);
        }
        ".nan" | ".NaN" | ".NAN" => return Resolved::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => {
            return Resolved::Float(f64::INFINITY);
        }
        "-.inf" | "-.Inf" | "-.INF" => return Resolved::Float(f64::NEG_INFINITY),
        _ => {}
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return Resolved::Text;
    }
    number(text).unwrap_or(Resolved::Text)
}

/// Whether a plain key stays what is written: text, or a number in its shortest form (kubectl
/// makes strings of number keys, which is how `portLevelMtls: {8080: …}` works).
pub(super) fn is_clean_key(text: &str) -> bool {
    match resolve(text) {
        Resolved::Text => true,
        Resolved::Integer(number) => number.to_string() == text,
        Resolved::Unsigned(number) => number.to_string() == text,
        Resolved::Float(_) | Resolved::Null | Resolved::Bool(_) => false,
    }
}

fn number(text: &str) -> Option<Resolved> {
    let plain = text.replace('_', "");
    if let Some(integer) = integer(&plain) {
        return Some(integer);
    }
    is_float(&plain).then(|| plain.parse().ok().map(Resolved::Float)).flatten()
}

/// Go's ParseInt with base 0: a sign, then `0x`, `0o`, `0b` or a leading zero for octal.
fn integer(plain: &str) -> Option<Resolved> {
    let (negative, digits) = match plain.as_bytes().first()? {
        b'-' => (true, plain.get(1..)?),
        b'+' => (false, plain.get(1..)?),
        _ => (false, plain),
    };
    let lower = digits.get(..2).map(str::to_ascii_lowercase);
    let (radix, digits) = match lower.as_deref() {
        Some("0x") => (16, digits.get(2..)?),
        Some("0o") => (8, digits.get(2..)?),
        Some("0b") => (2, digits.get(2..)?),
        Some(_) if digits.starts_with('0') => (8, digits.get(1..)?),
        _ => (10, digits),
    };
    if !digits.starts_with(|c: char| c.is_digit(radix)) {
        return None;
    }
    let magnitude = u64::from_str_radix(digits, radix).ok()?;
    match (negative, i64::try_from(magnitude)) {
        (false, Ok(number)) => Some(Resolved::Integer(number)),
        (false, Err(_)) => Some(Resolved::Unsigned(magnitude)),
        // -0 is kept a float, so that its sign is not lost.
        (true, Ok(0)) => Some(Resolved::Float(-0.0)),
        (true, Ok(number)) => Some(Resolved::Integer(-number)),
        (true, Err(_)) => (magnitude == 1 << 63).then_some(Resolved::Integer(i64::MIN)),
    }
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?` (YAML 1.2.2, 10.3.2).
fn is_float(text: &str) -> bool {
    let rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (rest, None),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let mantissa_fits = match mantissa.split_once('.') {
        Some(("", fraction)) => !fraction.is_empty() && digits(fraction),
        Some((whole, fraction)) => digits(whole) && digits(fraction),
        None => !mantissa.is_empty() && digits(mantissa),
    };
    mantissa_fits
        && exponent.is_none_or(|exponent| {
            let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
            !exponent.is_empty() && digits(exponent)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_are_read_as_kubectl_reads_them() {
        let cases = [
            ("yes", Resolved::Bool(true)),
            ("off", Resolved::Bool(false)),
            ("y", Resolved::Bool(true)),
            ("yEs", Resolved::Text),
            ("", Resolved::Null),
            ("~", Resolved::Null),
            ("12", Resolved::Integer(12)),
            ("-12", Resolved::Integer(-12)),
            ("+1_000", Resolved::Integer(1000)),
            ("010", Resolved::Integer(8)),
            ("0x1F", Resolved::Integer(31)),
            ("0o17", Resolved::Integer(15)),
            ("08", Resolved::Float(8.0)),
            ("18446744073709551615", Resolved::Unsigned(u64::MAX)),
            ("-9223372036854775808", Resolved::Integer(i64::MIN)),
            ("1.10", Resolved::Float(1.1)),
            (".5", Resolved::Float(0.5)),
            ("1e3", Resolved::Float(1000.0)),
            ("1.2.3", Resolved::Text),
            ("5s", Resolved::Text),
            ("10.0.0.0/8", Resolved::Text),
            ("2026-11-22T12:00:00Z", Resolved::Text),
            ("-", Resolved::Text),
            (".", Resolved::Text),
            ("0x", Resolved::Text),
            ("0x-1", Resolved::Text),
            ("--1", Resolved::Text),
            ("-+1", Resolved::Text),
        ];
        for (text, wanted) in cases {
            assert_eq!(resolve(text), wanted, "{text}");
        }
    }

    #[test]
    fn keys_that_kubectl_would_change_are_not_clean() {
        for key in ["app", "8080", "a.b/c", "5s"] {
            assert!(is_clean_key(key), "{key}");
        }
        for key in ["on", "y", "null", "010", "1.0", "0x10", "1_0"] {
            assert!(!is_clean_key(key), "{key}");
        }
    }
}
