//! Whether a resource matches one search parameter (search.html, "Search Parameter Types").

use serde_json::Value;

use super::check::is_date;
use super::problem::Problem;

/// How a parameter looks at a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The logical ID.
    Id,
    /// Parts of a HumanName (or a plain `name`), by prefix, ignoring case.
    Name(NamePart),
    /// A code element: equal.
    Code(&'static str),
    /// Identifier: `system|value`, `|value`, `system|` or `value`.
    Identifier,
    /// A CodeableConcept, or a list of them: `system|code` and so on.
    Concept(&'static str),
    /// A date element, with a prefix: eq, ne, gt, ge, lt, le.
    Date(&'static str),
    /// A reference in one of these elements, to this type where given.
    Reference(&'static [&'static str], Option<&'static str>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NamePart {
    Any,
    Family,
    Given,
}

/// A string parameter's modifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Modifier {
    None,
    Exact,
    Contains,
}

/// One parameter with its alternatives: any of them will do.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    pub(super) kind: Kind,
    pub(super) modifier: Modifier,
    pub(super) values: Vec<String>,
}

/// The parameter of this name for this type.
pub(super) fn kind(resource_type: &str, name: &str) -> Option<Kind> {
    let person = matches!(resource_type, "Patient" | "Person" | "Practitioner" | "RelatedPerson");
    let kind = match name {
        "_id" => Kind::Id,
        "identifier" => Kind::Identifier,
        "name" => Kind::Name(NamePart::Any),
        "family" if person => Kind::Name(NamePart::Family),
        "given" if person => Kind::Name(NamePart::Given),
        "gender" if person => Kind::Code("gender"),
        "birthdate" if person => Kind::Date("birthDate"),
        _ if person && resource_type != "RelatedPerson" => return None,
        "subject" => Kind::Reference(&["subject", "patient"], None),
        "patient" => Kind::Reference(&["patient", "subject"], Some("Patient")),
        "encounter" => Kind::Reference(&["encounter"], Some("Encounter")),
        "status" => Kind::Code("status"),
        "code" => Kind::Concept("code"),
        "category" => Kind::Concept("category"),
        _ => return None,
    };
    Some(kind)
}

impl Filter {
    /// Refuses what could never be compared: better 400 than an empty list that looks like truth.
    pub(super) fn check(&self, name: &str) -> Result<(), Problem> {
        let string = matches!(self.kind, Kind::Name(_));
        if self.modifier != Modifier::None && !string {
            let text = format!("the parameter {name:?} takes no such modifier");
            return Err(Problem::invalid(text));
        }
        if let Kind::Date(_) = self.kind {
            for value in &self.values {
                if !is_date(split_prefix(value).1) {
                    return Err(Problem::invalid(format!("{value:?} is not a date for {name:?}")));
                }
            }
        }
        Ok(())
    }

    pub(super) fn matches(&self, resource: &Value) -> bool {
        self.values.iter().any(|value| self.matches_one(resource, value))
    }

    fn matches_one(&self, resource: &Value, value: &str) -> bool {
        match self.kind {
            Kind::Id => text(resource, "id") == Some(value),
            Kind::Name(part) => names(resource, part).iter().any(|name| string(name, value, self.modifier)),
            Kind::Code(element) => {
                // `system|code` of a plain code element: its system is implied.
                let code = value.rsplit_once('|').map_or(value, |(_, code)| code);
                text(resource, element) == Some(code)
            }
            Kind::Identifier => list(resource.get("identifier")).any(|id| token(id, "value", value)),
            Kind::Concept(element) => list(resource.get(element))
                .flat_map(|concept| list(concept.get("coding")))
                .any(|coding| token(coding, "code", value)),
            Kind::Date(element) => text(resource, element).is_some_and(|date| date_matches(date, value)),
            Kind::Reference(elements, wanted) => elements.iter().any(|element| {
                list(resource.get(element))
                    .filter_map(|reference| text(reference, "reference"))
                    .any(|reference| reference_matches(reference, value, wanted))
            }),
        }
    }
}

fn text<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value.get(name).and_then(Value::as_str)
}

/// An element that may be missing, single or repeated.
fn list(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    let many = value.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let single = value.filter(|value| !value.is_array());
    many.iter().chain(single)
}

fn names(resource: &Value, part: NamePart) -> Vec<&str> {
    let elements: &[&str] = match part {
        NamePart::Any => &["family", "given", "text", "prefix", "suffix"],
        NamePart::Family => &["family"],
        NamePart::Given => &["given"],
    };
    let mut found = Vec::new();
    for name in list(resource.get("name")) {
        // An Organization's or Location's name is a plain string.
        found.extend(name.as_str().filter(|_| part == NamePart::Any));
        for element in elements {
            found.extend(list(name.get(element)).filter_map(Value::as_str));
        }
    }
    found
}

fn string(found: &str, wanted: &str, modifier: Modifier) -> bool {
    match modifier {
        Modifier::Exact => found == wanted,
        Modifier::None => found.to_lowercase().starts_with(&wanted.to_lowercase()),
        Modifier::Contains => found.to_lowercase().contains(&wanted.to_lowercase()),
    }
}

fn token(coding: &Value, element: &str, wanted: &str) -> bool {
    let (system, code) = match wanted.split_once('|') {
        Some((system, code)) => (Some(system), code),
        None => (None, wanted),
    };
    let system_fits = match system {
        None => true,
        Some("") => coding.get("system").is_none(),
        Some(system) => text(coding, "system") == Some(system),
    };
    system_fits && (code.is_empty() || text(coding, element) == Some(code))
}

/// `Patient/1`, `1` or an absolute URL, against a reference that may be absolute or versioned.
fn reference_matches(found: &str, wanted: &str, kind: Option<&str>) -> bool {
    let found = found.split_once("/_history/").map_or(found, |(before, _)| before);
    let mut parts = found.rsplit('/');
    let (id, of_type) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    if kind.is_some_and(|kind| kind != of_type) {
        return false;
    }
    match wanted.rsplit_once('/') {
        None => id == wanted,
        Some(_) if wanted.contains("://") => found == wanted,
        Some((wanted_type, wanted_id)) => of_type == wanted_type && id == wanted_id,
    }
}

fn split_prefix(value: &str) -> (&str, &str) {
    let known = ["eq", "ne", "gt", "ge", "lt", "le"];
    let found = known.iter().find_map(|prefix| Some((*prefix, value.strip_prefix(prefix)?)));
    found.unwrap_or(("eq", value))
}

/// Compares the spans of days that both dates stand for (search.html, "date").
fn date_matches(found: &str, wanted: &str) -> bool {
    let (prefix, wanted) = split_prefix(wanted);
    let (low, high) = span(found);
    let (from, to) = span(wanted);
    let equal = low >= from && high <= to;
    match prefix {
        "ne" => !equal,
        "gt" => high > to,
        "ge" => equal || high > to,
        "lt" => low < from,
        "le" => equal || low < from,
        _ => equal,
    }
}

/// First and last day in text form. Day 31 bounds every month, and text order is date order.
fn span(date: &str) -> (String, String) {
    match date.len() {
        4 => (format!("{date}-01-01"), format!("{date}-12-31")),
        7 => (format!("{date}-01"), format!("{date}-31")),
        _ => (date.to_owned(), date.to_owned()),
    }
}
