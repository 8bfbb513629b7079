//! What did not fit, and where.

use std::{fmt, sync::Arc};

use crate::manifest::{Place, Problem, codes, suggest};

/// A deserialization error. It is made without a place, wherever serde notices it, and gets the
/// place and path of the innermost node on its way out.
#[derive(Debug)]
pub(in crate::manifest) struct Failure(Box<Inner>);

#[derive(Debug)]
struct Inner {
    code: &'static str,
    message: String,
    at: Option<(u32, u32, String)>,
}

impl Failure {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { code, message: message.into(), at: None }))
    }

    /// Puts it at a place, unless it has one.
    pub(super) fn at(mut self, line: u32, column: u32, path: &Path<'_>) -> Self {
        self.0.at.get_or_insert_with(|| (line, column, path.to_string()));
        self
    }

    pub(in crate::manifest) fn into_problem(self, file: &Arc<str>) -> Problem {
        let (line, column, path) = self.0.at.unwrap_or((1, 1, String::new()));
        let place = Place { file: file.clone(), line, column };
        Problem::error(self.0.code, place, path, self.0.message)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Failure {}

impl serde::de::Error for Failure {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(codes::INVALID_VALUE, message.to_string())
    }

    fn unknown_field(field: &str, known: &'static [&'static str]) -> Self {
        let mut message = format!("unknown field `{}`", cut(field));
        match suggest::nearest(field, known) {
            Some(near) => message.push_str(&format!(", did you mean `{near}`?")),
            None if known.is_empty() => message.push_str(", no fields are known here"),
            None => message.push_str(&format!(", known are {}", list(known))),
        }
        Self::new(codes::UNKNOWN_FIELD, message)
    }

    fn unknown_variant(variant: &str, known: &'static [&'static str]) -> Self {
        let mut message = format!("unknown value `{}`", cut(variant));
        if let Some(near) = suggest::nearest(variant, known) {
            message.push_str(&format!(", did you mean `{near}`?"));
        }
        message.push_str(&format!(" (one of {})", list(known)));
        Self::new(codes::INVALID_VALUE, message)
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(codes::MISSING_FIELD, format!("the field `{field}` is missing"))
    }
}

fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

fn list(known: &[&str]) -> String {
    known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The way from the document's root to a node; lives on the stack, printed only when asked for.
#[derive(Debug, Clone, Copy)]
pub(in crate::manifest) enum Path<'a> {
    Root,
    Key(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Index(parent, index) => write!(f, "{parent}[{index}]"),
            Self::Key(parent, key) => {
                let odd = |c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-'));
                if key.is_empty() || key.contains(odd) {
                    write!(f, "{parent}[{key:?}]")
                } else if matches!(parent, Self::Root) {
                    f.write_str(key)
                } else {
                    write!(f, "{parent}.{key}")
                }
            }
        }
    }
}
