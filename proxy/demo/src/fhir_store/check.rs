//! What a resource must be to be stored. Not a validator: the few rules that the store's own
//! search relies on, and those that tell 400 from 422.

use serde_json::Value;

use super::FhirVersion;
use super::problem::Problem;
use super::types;

/// The longest logical ID (R4 datatypes, `id`).
const MAX_ID: usize = 64;
/// Codes of administrative-gender.
const GENDERS: [&str; 4] = ["male", "female", "other", "unknown"];

/// `[A-Za-z0-9\-\.]{1,64}`.
pub(super) fn id(id: &str) -> Result<(), Problem> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    if id.is_empty() || id.len() > MAX_ID || !id.bytes().all(allowed) {
        return Err(Problem::invalid(format!("{id:?} is not an id: [A-Za-z0-9-.] of length 1 to 64")));
    }
    Ok(())
}

/// A type of this release, or 404.
pub(super) fn kind(version: FhirVersion, kind: &str) -> Result<(), Problem> {
    if types::knows(version, kind) {
        return Ok(());
    }
    Err(Problem::not_found(format!("unknown resource type {kind:?} in FHIR {}", version.number())))
}

/// A body for this type.
///
/// # Errors
/// 400 when it is not a resource of this type at all, 422 when an element breaks a rule.
pub(super) fn resource(version: FhirVersion, wanted: &str, body: &Value) -> Result<(), Problem> {
    kind(version, wanted)?;
    let Some(object) = body.as_object() else {
        return Err(Problem::invalid("the body is not a JSON object"));
    };
    let found = object.get("resourceType").and_then(Value::as_str);
    if found != Some(wanted) {
        let found = found.unwrap_or("nothing");
        let text = format!("incorrect resource type: expected {wanted:?} but found {found:?}");
        return Err(Problem::invalid(text));
    }
    if object.get("meta").is_some_and(|meta| !meta.is_object()) {
        return Err(Problem::invalid("meta is not a JSON object"));
    }
    person(wanted, body)
}

fn person(kind: &str, body: &Value) -> Result<(), Problem> {
    if !matches!(kind, "Patient" | "Person" | "Practitioner" | "RelatedPerson") {
        return Ok(());
    }
    if let Some(gender) = body.get("gender")
        && !gender.as_str().is_some_and(|code| GENDERS.contains(&code))
    {
        return Err(Problem::rule(format!("{kind}.gender must be one of {GENDERS:?}")));
    }
    if let Some(date) = body.get("birthDate")
        && !date.as_str().is_some_and(is_date)
    {
        return Err(Problem::rule(format!("{kind}.birthDate is not a date: YYYY, YYYY-MM or YYYY-MM-DD")));
    }
    Ok(())
}

/// A FHIR date: a year, a month or a day that exists.
pub(super) fn is_date(text: &str) -> bool {
    let full = match text.len() {
        4 => format!("{text}-01-01"),
        7 => format!("{text}-01"),
        10 => text.to_owned(),
        _ => return false,
    };
    full.parse::<jiff::civil::Date>().is_ok()
}
