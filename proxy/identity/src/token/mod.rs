//! A compact JWS taken apart: parse, then time, then audience; the signature is the keys' room.
//!
//! Order and types as Envoy's (source/common/jwt/jwt.cc): a wrong type in a registered claim is an
//! error even where the claim is not used. Differences, all towards refusal: exactly two dots,
//! strict base64url in header and payload, `crit` and `b64` refused, `exp: 0` is past.

pub(crate) mod json;
#[cfg(test)]
mod tests;

use base64::{
    Engine as _,
    alphabet::URL_SAFE,
    engine::{
        DecodePaddingMode,
        general_purpose::{GeneralPurpose, GeneralPurposeConfig, URL_SAFE_NO_PAD},
    },
};
use serde_json::{Map, Value};

use crate::{
    keys::Algorithm,
    reason::RejectionReason as Reason,
    settings::TokenSettings,
    token::json::{JsonLimits, object},
};

/// Some signers pad the signature (`==`), and Envoy takes it. Trailing bits must still be zero.
const SIGNATURE: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The JOSE header needs little.
const HEADER_LIMITS: JsonLimits = JsonLimits { depth: 8, values: 64 };

/// A parsed token; nothing of it is believed yet.
#[derive(Debug)]
pub(crate) struct Token<'a> {
    /// `header.payload`, as signed.
    pub(crate) signed: &'a [u8],
    /// Payload, as encoded.
    pub(crate) payload: &'a str,
    /// Header's `alg`.
    pub(crate) algorithm: Algorithm,
    /// Header's `kid`; an empty one is none.
    pub(crate) kid: Option<String>,
    /// The payload.
    pub(crate) claims: Map<String, Value>,
    /// `aud` as a list.
    pub(crate) audiences: Vec<String>,
    /// `nbf`, Unix seconds.
    pub(crate) not_before: Option<u64>,
    /// `exp`, Unix seconds.
    pub(crate) expires: Option<u64>,
    /// Decoded.
    pub(crate) signature: Vec<u8>,
}

impl<'a> Token<'a> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// The first thing that is wrong, in Envoy's order.
    pub(crate) fn parse(text: &'a [u8], limits: &TokenSettings) -> Result<Self, Reason> {
        if text.len() > limits.token_bytes {
            return Err(Reason::TooLarge);
        }
        let text = std::str::from_utf8(text).map_err(|_| Reason::BadFormat)?;
        let (signed, signature) = text.rsplit_once('.').ok_or(Reason::BadFormat)?;
        let (header, payload) = signed.split_once('.').ok_or(Reason::BadFormat)?;
        if header.is_empty() || payload.is_empty() || signature.is_empty() || payload.contains('.') {
            return Err(Reason::BadFormat);
        }
        let (algorithm, kid) = parse_header(header, limits)?;
        let claims = parse_payload(payload, limits)?;
        text_claim(&claims, "iss", Reason::IssNotString)?;
        text_claim(&claims, "sub", Reason::SubNotString)?;
        number_claim(&claims, "iat", Reason::IatNotInteger, Reason::IatOutOfRange)?;
        let not_before = number_claim(&claims, "nbf", Reason::NbfNotInteger, Reason::NbfOutOfRange)?;
        let expires = number_claim(&claims, "exp", Reason::ExpNotInteger, Reason::ExpOutOfRange)?;
        text_claim(&claims, "jti", Reason::JtiNotString)?;
        let audiences = audiences(&claims)?;
        // Padded wholly or not at all.
        if signature.ends_with('=') && !signature.len().is_multiple_of(4) {
            return Err(Reason::SignatureBadBase64);
        }
        let signature = SIGNATURE.decode(signature).map_err(|_| Reason::SignatureBadBase64)?;
        Ok(Self {
            signed: signed.as_bytes(),
            payload,
            algorithm,
            kid,
            claims,
            audiences,
            not_before,
            expires,
            signature,
        })
    }

    /// `iss`; empty where there is none.
    pub(crate) fn issuer(&self) -> &str {
        self.text("iss")
    }

    /// A claim that parsing has found to be text or absent.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.claims.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// `nbf` and `exp`, both optional.
    ///
    /// # Errors
    /// [`Reason::NotYetValid`], [`Reason::Expired`].
    pub(crate) fn check_time(&self, now: i64, skew: u64) -> Result<(), Reason> {
        let now = u64::try_from(now).unwrap_or(0);
        if self.not_before.is_some_and(|nbf| now.saturating_add(skew) < nbf) {
            return Err(Reason::NotYetValid);
        }
        if self.expires.is_some_and(|expires| is_expired(expires, now, skew)) {
            return Err(Reason::Expired);
        }
        Ok(())
    }

    /// Any one of `allowed` (already [`plain_audience`]) suffices; none allowed: not checked.
    ///
    /// # Errors
    /// [`Reason::AudienceNotAllowed`].
    pub(crate) fn check_audience(&self, allowed: &[String]) -> Result<(), Reason> {
        let named = |aud: &String| allowed.iter().any(|a| a == plain_audience(aud));
        if allowed.is_empty() || self.audiences.iter().any(named) {
            return Ok(());
        }
        Err(Reason::AudienceNotAllowed)
    }
}

/// Whether `exp` is past. 0 always is: Envoy reads it as "never expires", which nobody means.
pub(crate) fn is_expired(expires: u64, now: u64, skew: u64) -> bool {
    expires == 0 || now > expires.saturating_add(skew)
}

/// An audience without `http://` or `https://` before and one slash behind, as Envoy compares
/// them (source/common/jwt/check_audience.cc).
pub(crate) fn plain_audience(audience: &str) -> &str {
    let bare =
        audience.strip_prefix("http://").or_else(|| audience.strip_prefix("https://")).unwrap_or(audience);
    bare.strip_suffix('/').unwrap_or(bare)
}

fn parse_header(encoded: &str, limits: &TokenSettings) -> Result<(Algorithm, Option<String>), Reason> {
    if encoded.len() > limits.header_bytes {
        return Err(Reason::TooLarge);
    }
    let text = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| Reason::HeaderBadBase64)?;
    let mut header = object(&text, HEADER_LIMITS).map_err(|_| Reason::HeaderBadJson)?;
    let algorithm = match header.get("alg") {
        Some(Value::String(name)) => Algorithm::parse(name).ok_or(Reason::HeaderAlgNotSupported)?,
        _ => return Err(Reason::HeaderBadAlg),
    };
    let kid = match header.remove("kid") {
        None => None,
        Some(Value::String(kid)) => Some(kid).filter(|kid| !kid.is_empty()),
        Some(_) => return Err(Reason::HeaderBadKid),
    };
    // `b64: false` (RFC 7797) changes what is signed; whoever sends it without `crit` is wrong too.
    if header.contains_key("crit") || header.contains_key("b64") {
        return Err(Reason::HeaderCritical);
    }
    Ok((algorithm, kid))
}

fn parse_payload(encoded: &str, limits: &TokenSettings) -> Result<Map<String, Value>, Reason> {
    let text = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| Reason::PayloadBadBase64)?;
    let limits = JsonLimits { depth: limits.claims_depth, values: limits.claims_values };
    object(&text, limits).map_err(|_| Reason::PayloadBadJson)
}

fn text_claim(claims: &Map<String, Value>, name: &str, wrong: Reason) -> Result<(), Reason> {
    match claims.get(name) {
        None | Some(Value::String(_)) => Ok(()),
        Some(_) => Err(wrong),
    }
}

fn number_claim(
    claims: &Map<String, Value>,
    name: &str,
    wrong: Reason,
    range: Reason,
) -> Result<Option<u64>, Reason> {
    let number = match claims.get(name) {
        None => return Ok(None),
        Some(Value::Number(number)) => number,
        Some(_) => return Err(wrong),
    };
    // As a double, for Envoy keeps every number as one: 2^64 - 1 is 2^64 then, and out of range.
    match number.as_f64() {
        // Fractions are cut, as Envoy does; the cast saturates and the upper bound is 2^64.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        Some(real) if (0.0..18_446_744_073_709_551_616.0).contains(&real) => Ok(Some(real as u64)),
        _ => Err(range),
    }
}

fn audiences(claims: &Map<String, Value>) -> Result<Vec<String>, Reason> {
    match claims.get("aud") {
        None => Ok(Vec::new()),
        Some(Value::String(one)) => Ok(vec![one.clone()]),
        Some(Value::Array(list)) => {
            list.iter().map(|value| value.as_str().map(str::to_owned).ok_or(Reason::AudNotString)).collect()
        }
        Some(_) => Err(Reason::AudNotString),
    }
}
