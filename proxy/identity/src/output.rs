//! What a verified token leaves behind: the identity that policies see, and headers for upstream.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderName, HeaderValue};
use policy::{RequestIdentity, istio::JwtRule};
use serde_json::{Map, Number, Value};

use crate::token::Token;

/// Claims that Istio always takes for lists (pilot/pkg/security/authn, buildSpaceDelimitedClaims).
const SPACE_DELIMITED: [&str; 2] = ["scope", "permission"];

/// The identity of a verified token.
pub(crate) fn identity(token: Token<'_>, rule: &JwtRule) -> RequestIdentity {
    let issuer = token.issuer().to_owned();
    let subject = token.text("sub").to_owned();
    let presenter = token.claims.get("azp").and_then(Value::as_str).map(str::to_owned);
    let mut claims = token.claims;
    let listed = rule.space_delimited_claims.iter().map(String::as_str);
    for name in SPACE_DELIMITED.into_iter().chain(listed) {
        split_on_spaces(&mut claims, name);
    }
    RequestIdentity { issuer, subject, presenter, audiences: token.audiences, claims }
}

/// Text becomes a list of its words; text without words stays text, as in Envoy.
fn split_on_spaces(claims: &mut Map<String, Value>, name: &str) {
    let Some(claim) = claims.get_mut(name) else { return };
    let Some(text) = claim.as_str() else { return };
    let words: Vec<Value> = text.split(' ').filter(|word| !word.is_empty()).map(Value::from).collect();
    if !words.is_empty() {
        *claim = Value::Array(words);
    }
}

/// The headers that a rule wants set: the payload as it was encoded, and single claims.
pub(crate) fn headers(token: &Token<'_>, rule: &JwtRule) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = Vec::new();
    if let Some(name) = &rule.output_payload_to_header {
        append(&mut headers, name, token.payload);
    }
    for (name, path) in &rule.output_claim_to_headers {
        if let Some(text) = claim(&token.claims, path).and_then(claim_text) {
            append(&mut headers, name, &text);
        }
    }
    headers
}

/// Two claims for one header are two values of it, as in Envoy: policies match each. What cannot
/// stand in a header is left out.
fn append(headers: &mut Vec<(HeaderName, HeaderValue)>, name: &HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) {
        headers.push((name.clone(), value));
    }
}

fn claim<'a>(claims: &'a Map<String, Value>, path: &[String]) -> Option<&'a Value> {
    let (last, before) = path.split_last()?;
    let mut object = claims;
    for name in before {
        object = object.get(name)?.as_object()?;
    }
    object.get(last)
}

/// As Envoy writes it (authenticator.cc): whole non-negative numbers as integers, others with six
/// decimals; lists and objects as base64 of their JSON; nothing for null and empty text.
fn claim_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Number(number) => number.as_f64().map(number_text),
        Value::Array(_) | Value::Object(_) => Some(STANDARD.encode(as_doubles(value.clone()).to_string())),
        Value::Null => None,
    }
}

fn number_text(number: f64) -> String {
    if !(0.0..18_446_744_073_709_551_616.0).contains(&number) || number.fract() != 0.0 {
        return format!("{number:.6}");
    }
    // Checked above: whole and below 2^64.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let whole = number as u64;
    whole.to_string()
}

/// Envoy keeps every number as a double and prints whole ones without a fraction.
fn as_doubles(value: Value) -> Value {
    match value {
        Value::Array(list) => list.into_iter().map(as_doubles).collect(),
        Value::Object(object) => object.into_iter().map(|(name, value)| (name, as_doubles(value))).collect(),
        Value::Number(number) => Value::Number(as_double(number)),
        other => other,
    }
}

fn as_double(number: Number) -> Number {
    match number.as_f64() {
        // Doubles below 2^53 that are whole are exact integers.
        #[allow(clippy::cast_possible_truncation)]
        Some(real) if number.is_f64() && real.fract() == 0.0 && real.abs() < 9.007e15 => {
            Number::from(real as i64)
        }
        _ => number,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn claims_are_written_as_a_running_envoy_writes_them() {
        for (claim, text) in [
            (json!("x y"), Some("x y")),
            (json!(""), None),
            (json!(null), None),
            (json!(true), Some("true")),
            (json!(false), Some("false")),
            (json!(0), Some("0")),
            (json!(42), Some("42")),
            (json!(42.0), Some("42")),
            (json!(1.5), Some("1.500000")),
            (json!(-3), Some("-3.000000")),
            (json!(-0.0), Some("0")),
            (json!(1e20), Some("100000000000000000000.000000")),
            (json!(["a", 1, 1.0]), Some("WyJhIiwxLDFd")),
            (json!({"a": 1}), Some("eyJhIjoxfQ==")),
        ] {
            assert_eq!(claim_text(&claim).as_deref(), text, "{claim}");
        }
    }

    #[test]
    fn nested_claims_are_found_and_dotted_names_are_not() {
        let claims = json!({"a": {"b": {"c": "x"}}, "d.e": "y", "s": "text"});
        let claims = claims.as_object().unwrap();
        let path = |text: &str| text.split('.').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(claim(claims, &path("a.b.c")), Some(&json!("x")));
        assert_eq!(claim(claims, &path("d.e")), None);
        assert_eq!(claim(claims, &path("s.x")), None);
        assert_eq!(claim(claims, &[]), None);
    }

    #[test]
    fn header_injection_by_a_claim_is_left_out() {
        let mut headers = Vec::new();
        let name = HeaderName::from_static("x-user");
        append(&mut headers, &name, "a\r\nx-admin: 1");
        assert!(headers.is_empty());
        append(&mut headers, &name, "a");
        append(&mut headers, &name, "b");
        let value = |text| (name.clone(), HeaderValue::from_static(text));
        assert_eq!(headers, [value("a"), value("b")]);
    }

    #[test]
    fn scope_becomes_a_list_and_text_without_words_stays() {
        let mut claims = json!({"scope": " a  b ", "permission": "", "other": ["x y"]});
        let claims = claims.as_object_mut().unwrap();
        for name in ["scope", "permission", "other", "absent"] {
            split_on_spaces(claims, name);
        }
        assert_eq!(
            Value::Object(claims.clone()),
            json!({"scope": ["a", "b"], "permission": "", "other": ["x y"]})
        );
    }
}
