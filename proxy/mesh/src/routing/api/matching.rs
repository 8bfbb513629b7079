//! HTTPRoute matches, compiled, and their precedence.

use std::cmp::Reverse;

use policy::{
    Problem,
    manifest::{Located, codes},
};

use super::spec::{MatchSpec, NamedMatchSpec, ValueMatchSpec};
use crate::routing::{
    condition::{Condition, HeaderMatch, ParameterMatch, PathMatch},
    headers::header_name,
    text::{Pattern, TextMatch},
};

/// Which of several rules of one host comes first (HTTPRouteRule.matches): exact paths, the longest
/// prefixes, regular expressions last, then a method, most headers, most query parameters, the
/// oldest route, its namespace and name, the order of rules and matches.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Precedence {
    shape: Reverse<Shape>,
    age: (String, String, String),
    position: (usize, usize),
}

/// Rank of the path's kind, its length, whether there is a method, headers, query parameters.
type Shape = (u8, usize, bool, usize, usize);

impl Precedence {
    pub(super) fn of(condition: &Condition, age: (String, String, String), position: (usize, usize)) -> Self {
        let (rank, length) = match &condition.path {
            PathMatch::Exact(path) => (3, path.len()),
            PathMatch::Prefix(prefix) | PathMatch::Segments(prefix) => (2, prefix.len()),
            PathMatch::Any => (2, 1),
            PathMatch::Regex { source, .. } => (1, source.len()),
        };
        let (headers, parameters) = (condition.headers.len(), condition.parameters.len());
        let shape = Reverse((rank, length, condition.method.is_some(), headers, parameters));
        Self { shape, age, position }
    }
}

pub(super) fn read(spec: &Located<MatchSpec>) -> Result<Condition, Problem> {
    let path = match &spec.path {
        Some(path) => read_path(path).map_err(|text| path.error(codes::INVALID_VALUE, text))?,
        None => PathMatch::Any,
    };
    let mut headers: Vec<HeaderMatch> = Vec::new();
    for header in &spec.headers {
        let name =
            header_name(&header.name).map_err(|text| header.error(codes::INVALID_HEADER_NAME, text))?;
        // Of several entries of one name the first counts.
        if headers.iter().all(|known| known.name != name) {
            headers.push(HeaderMatch { name, text: read_text(header)?, without: false });
        }
    }
    let mut parameters: Vec<ParameterMatch> = Vec::new();
    for parameter in &spec.query_params {
        if parameters.iter().all(|known| known.name != parameter.name) {
            let text = read_text(parameter)?;
            parameters.push(ParameterMatch { name: parameter.name.clone(), text });
        }
    }
    let method = match spec.method.as_deref() {
        None => None,
        Some(method) if METHODS.contains(&method) => Some(TextMatch::Exact(method.to_owned())),
        Some(other) => {
            return Err(spec.error(codes::INVALID_VALUE, format!("`{other}` is no HTTP method")));
        }
    };
    Ok(Condition { path, method, headers, parameters, ..Condition::default() })
}

const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

fn read_path(spec: &ValueMatchSpec) -> Result<PathMatch, String> {
    let value = spec.value.as_deref().unwrap_or("/");
    let kind = spec.kind.as_deref().unwrap_or("PathPrefix");
    if kind != "RegularExpression" && !value.starts_with('/') {
        return Err(format!("`{value}`: a path begins with `/`"));
    }
    match kind {
        "Exact" => Ok(PathMatch::Exact(value.to_owned())),
        "PathPrefix" => Ok(match value.trim_end_matches('/') {
            "" => PathMatch::Any,
            prefix => PathMatch::Segments(prefix.to_owned()),
        }),
        "RegularExpression" => {
            Ok(PathMatch::Regex { source: value.to_owned(), pattern: Pattern::whole(value)? })
        }
        other => Err(format!("`{other}` is none of Exact, PathPrefix and RegularExpression")),
    }
}

fn read_text(spec: &Located<NamedMatchSpec>) -> Result<TextMatch, Problem> {
    let invalid = |text| spec.error(codes::INVALID_VALUE, text);
    match spec.kind.as_deref().unwrap_or("Exact") {
        "Exact" => Ok(TextMatch::Exact(spec.value.value.clone())),
        "RegularExpression" => Pattern::whole(&spec.value.value).map(TextMatch::Regex).map_err(invalid),
        other => Err(invalid(format!("`{other}` is neither Exact nor RegularExpression"))),
    }
}
