use std::collections::BTreeMap;

use serde::Deserialize;

/// The part of `metadata` that is looked at; the rest is carried by no one.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    /// Object name.
    pub name: String,
    /// Namespace; `None` where the manifest names none (`default` applies to namespaced kinds).
    pub namespace: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// RFC 3339; orders policies and VirtualServices; absent in files (file order then holds).
    pub creation_timestamp: Option<String>,
}
