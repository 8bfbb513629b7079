//! Method and path to a RESTful interaction of R4 and R5 (http.html of both).
//!
//! | path below the base | method: interaction |
//! |---|---|
//! | `` | GET: search-system, POST: batch or transaction, DELETE: delete (R5, conditional), OPTIONS: capabilities |
//! | `metadata` | GET, HEAD: capabilities |
//! | `_search` | POST: search-system |
//! | `_history` | GET: history-system |
//! | `T` | GET, HEAD: search-type, POST: create; conditional PUT, PATCH, DELETE: update, patch, delete |
//! | `T/_search` | POST: search-type |
//! | `T/_history` | GET: history-type |
//! | `T/id` | GET, HEAD: read, PUT: update, PATCH: patch, DELETE: delete |
//! | `T/id/_history`, `T/id/_history/v` | GET: history-instance; GET, HEAD: vread |
//! | `C/id/T`, `C/id/*`, `C/id/T/_search` | GET; POST: search-compartment |
//! | `$op`, `T/$op`, `T/id/$op`, `T/id/_history/v/$op` | GET, HEAD, POST, DELETE: operation |

#[cfg(test)]
mod tests;

use http::Method;

use crate::resource_type;

/// A RESTful interaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interaction {
    /// What is done.
    pub kind: Kind,
    /// To which type; `None` at system level, and for a compartment's `*`.
    pub resource: Option<&'static str>,
    /// The compartment (`Patient`…), for `search-compartment`.
    pub compartment: Option<&'static str>,
}

/// Kinds of interactions: R5's code system `restful-interaction`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `read`
    Read,
    /// `vread`
    Vread,
    /// `update`, conditional ones too.
    Update,
    /// `patch`, conditional ones too.
    Patch,
    /// `delete`, conditional ones too.
    Delete,
    /// `history-instance`
    HistoryInstance,
    /// `history-type`
    HistoryType,
    /// `history-system`
    HistorySystem,
    /// `create`
    Create,
    /// `search-type`
    SearchType,
    /// `search-system`
    SearchSystem,
    /// `search-compartment`
    SearchCompartment,
    /// `capabilities`
    Capabilities,
    /// `batch` or `transaction`: the Bundle's own type tells which.
    Bundle,
    /// `operation`
    Operation,
}

impl Kind {
    /// The code, as records tell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Vread => "vread",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::HistoryInstance => "history-instance",
            Self::HistoryType => "history-type",
            Self::HistorySystem => "history-system",
            Self::Create => "create",
            Self::SearchType => "search-type",
            Self::SearchSystem => "search-system",
            Self::SearchCompartment => "search-compartment",
            Self::Capabilities => "capabilities",
            Self::Bundle => "batch-or-transaction",
            Self::Operation => "operation",
        }
    }
}

/// Compartments of R4 and R5 (compartmentdefinition.html).
const COMPARTMENTS: [&str; 5] = ["Device", "Encounter", "Patient", "Practitioner", "RelatedPerson"];

/// The interaction, or `None` where the call is none that FHIR's grammar knows.
///
/// `path` is canonical, `base` (`/fhir`, or empty for the root) is compared by whole segments.
#[must_use]
pub fn classify(method: &Method, path: &str, query: Option<&str>, base: &str) -> Option<Interaction> {
    let rest = path.strip_prefix(base.trim_end_matches('/'))?;
    let rest = match rest.strip_prefix('/') {
        Some(rest) => rest,
        None if rest.is_empty() => rest,
        None => return None,
    };
    // One trailing slash is what servers forgive.
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let mut segments = [""; 6];
    let mut count = 0;
    for segment in rest.split('/').filter(|_| !rest.is_empty()) {
        *segments.get_mut(count)? = segment;
        count += 1;
    }
    let segments = segments.get(..count)?;
    if segments.iter().any(|segment| segment.is_empty()) {
        return None;
    }
    let call = Call { read: *method == Method::GET || *method == Method::HEAD, method, query };
    match segments {
        [] => call.base(),
        [first, ..] if first.starts_with(|c: char| !c.is_ascii_uppercase()) => call.system(segments),
        [name, rest @ ..] => call.on_type(resource_type(name)?, rest),
    }
}

struct Call<'a> {
    /// GET or HEAD.
    read: bool,
    method: &'a Method,
    query: Option<&'a str>,
}

fn plain(kind: Kind, resource: Option<&'static str>) -> Option<Interaction> {
    Some(Interaction { kind, resource, compartment: None })
}

impl Call<'_> {
    fn is(&self, method: &Method) -> bool {
        self.method == method
    }

    fn conditional(&self) -> bool {
        self.query.is_some_and(|query| !query.is_empty())
    }

    fn base(&self) -> Option<Interaction> {
        match *self.method {
            Method::POST => plain(Kind::Bundle, None),
            Method::OPTIONS => plain(Kind::Capabilities, None),
            Method::DELETE if self.conditional() => plain(Kind::Delete, None),
            _ if self.read => plain(Kind::SearchSystem, None),
            _ => None,
        }
    }

    fn system(&self, segments: &[&str]) -> Option<Interaction> {
        match segments {
            ["metadata"] if self.read => plain(Kind::Capabilities, None),
            ["_search"] if self.is(&Method::POST) => plain(Kind::SearchSystem, None),
            ["_history"] if self.read => plain(Kind::HistorySystem, None),
            [name] => self.operation(name, None),
            _ => None,
        }
    }

    fn on_type(&self, resource: &'static str, rest: &[&str]) -> Option<Interaction> {
        let on = Some(resource);
        match rest {
            [] => self.whole_type(resource),
            ["_search"] if self.is(&Method::POST) => plain(Kind::SearchType, on),
            ["_history"] if self.read => plain(Kind::HistoryType, on),
            [name] if name.starts_with('$') => self.operation(name, on),
            [id] if is_id(id) => self.instance(resource),
            [id, "_history"] if is_id(id) && self.read => plain(Kind::HistoryInstance, on),
            [id, name] if is_id(id) && name.starts_with('$') => self.operation(name, on),
            [id, "_history", version] if is_id(id) && is_id(version) && self.read => plain(Kind::Vread, on),
            [id, "_history", version, name] if is_id(id) && is_id(version) => self.operation(name, on),
            [id, inner, tail @ ..] if is_id(id) => self.compartment(resource, inner, tail),
            _ => None,
        }
    }

    fn whole_type(&self, resource: &'static str) -> Option<Interaction> {
        let on = Some(resource);
        match *self.method {
            Method::POST => plain(Kind::Create, on),
            Method::PUT if self.conditional() => plain(Kind::Update, on),
            Method::PATCH if self.conditional() => plain(Kind::Patch, on),
            Method::DELETE if self.conditional() => plain(Kind::Delete, on),
            _ if self.read => plain(Kind::SearchType, on),
            _ => None,
        }
    }

    fn instance(&self, resource: &'static str) -> Option<Interaction> {
        let on = Some(resource);
        match *self.method {
            Method::PUT => plain(Kind::Update, on),
            Method::PATCH => plain(Kind::Patch, on),
            Method::DELETE => plain(Kind::Delete, on),
            _ if self.read => plain(Kind::Read, on),
            _ => None,
        }
    }

    fn compartment(&self, compartment: &'static str, inner: &str, tail: &[&str]) -> Option<Interaction> {
        if !COMPARTMENTS.contains(&compartment) {
            return None;
        }
        let resource = if inner == "*" { None } else { Some(resource_type(inner)?) };
        let searches = match tail {
            [] => self.read,
            ["_search"] => self.is(&Method::POST),
            _ => false,
        };
        searches.then_some(Interaction {
            kind: Kind::SearchCompartment,
            resource,
            compartment: Some(compartment),
        })
    }

    fn operation(&self, name: &str, resource: Option<&'static str>) -> Option<Interaction> {
        let named = name.strip_prefix('$').is_some_and(|name| !name.is_empty());
        let method = self.read || self.is(&Method::POST) || self.is(&Method::DELETE);
        if named && method { plain(Kind::Operation, resource) } else { None }
    }
}

/// Ids and version ids: 1 to 64 letters, digits, `-`, `.` (datatypes.html#id).
fn is_id(text: &str) -> bool {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    (1..=64).contains(&text.len()) && text.bytes().all(fine)
}
