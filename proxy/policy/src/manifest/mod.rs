//! Text to Kubernetes objects that remember where each field stood.
//!
//! One YAML parser (saphyr-parser) reads multi-document YAML and JSON into [`Node`] trees; a serde
//! deserializer over them gives typed specs whose errors name file, line, column and field path.

use std::{fmt, sync::Arc};

use serde::Serialize;

/// Where something stands: file, line and column, both from 1.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// File as the user named it.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// How bad a problem is. An `Error` refuses the whole new snapshot (invariant 5); a `Warning`
/// is told by `check`, in the log and in a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Warning,
    /// Not to be used.
    Error,
}

/// Something wrong with a manifest, in words for the person who wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How bad.
    pub severity: Severity,
    /// Stable machine-readable code, kebab-case (`unknown-field`, `never-matches`, `keycloak-no-sub`…).
    pub code: &'static str,
    /// Where.
    pub place: Place,
    /// Field path (`spec.rules[0].from[0].source.principals[1]`), empty for the whole document.
    pub field: String,
    /// `Kind namespace/name`, where known.
    pub object: Option<String>,
    /// What is wrong and what to do.
    pub message: String,
}

mod metadata;
pub use metadata::Metadata;

/// A Kubernetes object, whole, with places.
#[derive(Debug, Clone)]
pub struct Object {
    /// `security.istio.io/v1`…
    pub api_version: String,
    /// `AuthorizationPolicy`…
    pub kind: String,
    /// Name, namespace, labels, annotations, creation time.
    pub metadata: Metadata,
    /// Start of the document.
    pub place: Place,
    /// The document's tree.
    pub root: Node,
}

/// A node of a document's tree. (The owner of this room fills this in.)
#[derive(Debug, Clone)]
pub struct Node;

impl Object {
    /// The API group, without the version (`security.istio.io`; empty for the core group).
    #[must_use]
    pub fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }

    /// The typed content of one top-level field (`spec`, `data`…): `Ok(None)` where absent.
    ///
    /// # Errors
    /// The first field that does not fit, with its place and path. Types that deny unknown fields
    /// make those an error too.
    pub fn field<T: serde::de::DeserializeOwned>(&self, _name: &str) -> Result<Option<T>, Problem> {
        todo!()
    }
}

/// Parses multi-document YAML or JSON (a JSON array or a `kind: List` is flattened) into objects.
/// Documents that fail are reported; the rest is still returned.
#[must_use]
pub fn parse(_file: &str, _text: &str) -> (Vec<Object>, Vec<Problem>) {
    todo!()
}

/// Parses one document into any type: settings, PolicyTest files. Same parser, same errors.
///
/// # Errors
/// Syntax errors and fields that do not fit, with place and path.
pub fn from_str<T: serde::de::DeserializeOwned>(_file: &str, _text: &str) -> Result<T, Problem> {
    todo!()
}
