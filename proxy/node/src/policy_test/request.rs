//! The request of a case: its token made, its headers in place.

use std::path::Path;

use policy::Problem;
use serde_json::{Map, Value, json};

use super::{
    format::Case,
    problem,
    tokens::{Kind, Signer},
};

/// Where a case wants its token somewhere else than in `Authorization`, it writes this there.
const PLACEHOLDER: &str = "{{token}}";

/// Target and headers of a case's request, with the token in them.
pub(super) struct Prepared {
    pub(super) target: String,
    pub(super) headers: Vec<(String, String)>,
}

/// Makes the token and puts it where the case has `{{token}}`, else into `Authorization`.
/// `issuer` is used for tokens asked for without claims.
pub(super) fn prepare(
    case: &Case,
    signer: &Signer,
    issuer: Option<&str>,
    now: i64,
    file: &Path,
) -> Result<Prepared, Problem> {
    let request = &case.request;
    let mut target = request.path.clone();
    let mut headers = request.headers.0.clone();
    let Some(token) = token(case, signer, issuer, now, file)? else {
        return Ok(Prepared { target, headers });
    };
    let mut placed = target.contains(PLACEHOLDER);
    target = target.replace(PLACEHOLDER, &token);
    for (_, value) in &mut headers {
        placed |= value.contains(PLACEHOLDER);
        *value = value.replace(PLACEHOLDER, &token);
    }
    if !placed {
        headers.push(("authorization".to_owned(), format!("Bearer {token}")));
    }
    Ok(Prepared { target, headers })
}

fn token(
    case: &Case,
    signer: &Signer,
    issuer: Option<&str>,
    now: i64,
    file: &Path,
) -> Result<Option<String>, Problem> {
    let wanted = match (&case.request.token, &case.request.claims) {
        (None, None) => return Ok(None),
        (None, Some(_)) => "valid",
        (Some(name), _) => name.as_str(),
    };
    if wanted == "none" {
        return Ok(None);
    }
    let Some(kind) = Kind::named(wanted) else {
        return raw(case, wanted, file).map(Some);
    };
    let made_up = || -> Map<String, Value> {
        let claims = json!({"iss": issuer.unwrap_or_default(), "sub": "policy-test"});
        claims.as_object().cloned().unwrap_or_default()
    };
    let claims = case.request.claims.clone().unwrap_or_else(made_up);
    let failed = |_| problem(file, "cases.request.token", "the token could not be signed");
    signer.token(kind, &claims, now).map(Some).map_err(failed)
}

/// A raw token has the look of one; anything else is a misspelt kind.
fn raw(case: &Case, text: &str, file: &Path) -> Result<String, Problem> {
    if text.contains('.') || text.len() > 40 {
        return Ok(text.to_owned());
    }
    Err(problem(
        file,
        format!("cases[{}].request.token", case.name),
        format!(
            "`{text}` is neither valid, none, expired, not-yet-valid, wrong-signature, unknown-key, \
             wrong-algorithm or malformed, nor a compact JWS"
        ),
    ))
}
