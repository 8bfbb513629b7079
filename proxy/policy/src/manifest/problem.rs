//! What is wrong with a manifest, and where.

use std::{fmt, sync::Arc};

use serde::Serialize;

/// Where something stands: file, line and column, both from 1.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
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
/// is told by `check` (which then exits 1) and counted in a metric; a `Note` is told by `check`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing is wrong here, but it depends on something outside the manifests.
    Note,
    /// Probably not what was meant.
    Warning,
    /// Not to be used.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// Something wrong with a manifest, in words for the person who wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How bad.
    pub severity: Severity,
    /// Stable machine-readable code, kebab-case; all are listed in [`super::codes`].
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

impl Problem {
    /// An error at `place`.
    #[must_use]
    pub fn error(
        code: &'static str,
        place: Place,
        field: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        let (field, message) = (field.into(), message.into());
        Self { severity: Severity::Error, code, place, field, object: None, message }
    }

    /// A warning at `place`.
    #[must_use]
    pub fn warning(
        code: &'static str,
        place: Place,
        field: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, place, field, message) }
    }

    /// The same problem, as a note.
    #[must_use]
    pub fn as_note(self) -> Self {
        Self { severity: Severity::Note, ..self }
    }

    /// The same problem, said of an object (`Kind namespace/name`).
    #[must_use]
    pub fn of(mut self, object: impl Into<String>) -> Self {
        self.object = Some(object.into());
        self
    }

    /// Whether it forbids the use of the manifests.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}[{}]: ", self.place, self.severity, self.code)?;
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}
