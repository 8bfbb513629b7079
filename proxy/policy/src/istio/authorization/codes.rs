//! Codes of this room's problems: those of `manifest::codes`, and a few of its own.

pub(super) use crate::manifest::codes::{
    CUSTOM_DENIES, DRY_RUN_VALUE, HTTP_RULE_ON_TCP, INVALID_VALUE, LOWER_CASE_METHOD, NEVER_MATCHES,
    PATH_WITH_QUERY, SPIFFE_PREFIX, TOO_MANY,
};

/// DENY, CUSTOM or AUDIT without rules.
pub(super) const NO_RULES: &str = "no-rules";
/// `provider` missing, empty or out of place.
pub(super) const PROVIDER: &str = "invalid-provider";
/// Something that must not be empty, or (as a warning) counts as absent when it is.
pub(super) const EMPTY: &str = "empty-field";
/// Two fields that exclude each other.
pub(super) const EXCLUSIVE: &str = "exclusive-fields";
/// An unknown or malformed `when` key.
pub(super) const KEY: &str = "invalid-key";
/// A field that CUSTOM may not use.
pub(super) const CUSTOM: &str = "unsupported-with-custom";
/// A value that matches something else than it seems to.
pub(super) const SURPRISE: &str = "surprising-match";
