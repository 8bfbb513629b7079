//! Codes of this room's problems, beside those of [`policy::manifest::codes`].

/// A route leads to a host that nothing in the mesh or the settings bears.
pub const UNKNOWN_DESTINATION: &str = "unknown-destination";
/// A Gateway API reference that its target's namespace does not permit.
pub const REFERENCE_NOT_GRANTED: &str = "reference-not-granted";
/// Two workloads claim one address; it identifies neither.
pub const AMBIGUOUS_ADDRESS: &str = "ambiguous-address";
/// A file or folder that cannot be read.
pub const UNREADABLE: &str = "unreadable";
/// A setting of `mesh:` that does not fit.
pub const BAD_SETTINGS: &str = "bad-settings";

/// Every code with its meaning, for `fhirward check --help` and the README.
pub const ALL: &[(&str, &str)] = &[
    (UNKNOWN_DESTINATION, "A route leads to a host that nothing in the mesh or the settings bears."),
    (REFERENCE_NOT_GRANTED, "A Gateway API reference that its target's namespace does not permit."),
    (AMBIGUOUS_ADDRESS, "Two workloads claim one address; it identifies neither."),
    (UNREADABLE, "A file or folder that cannot be read."),
    (BAD_SETTINGS, "A setting of `mesh:` that does not fit."),
];
