//! Inline key sets: the shape of RFC 7517, and no secrets.

use serde_json::{Map, Value};

use crate::manifest::codes;

/// Longest inline `jwks`, bytes.
const MAX_JWKS: usize = 1024 * 1024;
/// Members that only a private or symmetric key has (RFC 7518, 6.2.2, 6.3.2, 6.4.1; RFC 8037).
const SECRET: &[&str] = &["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// Checks that a text is a JSON Web Key Set of public keys. Gives a code and a message that does
/// not repeat the text: it may hold a secret.
pub(super) fn check(text: &str) -> Result<(), (&'static str, String)> {
    let invalid = |why: &str| (codes::INVALID_JWKS, format!("not a JSON Web Key Set: {why}"));
    if text.len() > MAX_JWKS {
        return Err(invalid(&format!("longer than {MAX_JWKS} bytes")));
    }
    let set: Map<String, Value> = serde_json::from_str(text).map_err(|error| {
        invalid(&format!("not a JSON object (line {}, column {})", error.line(), error.column()))
    })?;
    // A single private key in place of a set is told for what it is.
    refuse_secrets(&set, "the set")?;
    let Some(Value::Array(keys)) = set.get("keys") else {
        return Err(invalid("`keys` must be a list"));
    };
    if keys.is_empty() {
        return Err(invalid("`keys` is empty, so no token can verify"));
    }
    for (index, key) in keys.iter().enumerate() {
        let Value::Object(key) = key else {
            return Err(invalid(&format!("`keys[{index}]` is not an object")));
        };
        refuse_secrets(key, &format!("`keys[{index}]`"))?;
        if !key.get("kty").is_some_and(Value::is_string) {
            return Err(invalid(&format!("`keys[{index}]` has no `kty`")));
        }
    }
    Ok(())
}

/// CVE-2026-31837: a key set that was handed out with its private key let anyone forge tokens.
fn refuse_secrets(key: &Map<String, Value>, which: &str) -> Result<(), (&'static str, String)> {
    let Some(member) = SECRET.iter().find(|member| key.contains_key(**member)) else {
        return Ok(());
    };
    let text = format!(
        "{which} holds `{member}`, part of a private or symmetric key: whoever reads this manifest \
         can forge tokens; replace the key pair and publish its public part only"
    );
    Err((codes::PRIVATE_KEY_IN_JWKS, text))
}
