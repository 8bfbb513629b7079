//! Object metadata.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

/// The part of `metadata` that is looked at; the rest is carried by no one.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    /// Object name.
    #[serde(deserialize_with = "null_is_empty")]
    pub name: String,
    /// Namespace; `None` where the manifest names none (`default` applies to namespaced kinds).
    pub namespace: Option<String>,
    /// Labels.
    #[serde(deserialize_with = "null_is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(deserialize_with = "null_is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// RFC 3339; orders policies and VirtualServices; absent in files (names then order them).
    pub creation_timestamp: Option<String>,
}

/// Kubernetes takes null for an empty map or string in its own types.
fn null_is_empty<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}
