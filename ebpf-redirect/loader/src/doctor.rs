//! Whether this node can capture, and what to do where it cannot.

use std::path::PathBuf;

/// What to look at.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The pin root of the settings.
    pub bpffs: PathBuf,
    /// Root of cgroup v2; none: found in `/proc/self/mountinfo`.
    pub cgroup_root: Option<PathBuf>,
}

/// One thing that capture needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Such as `kernel version`.
    pub name: String,
    /// Whether it is there.
    pub ok: bool,
    /// What was found.
    pub found: String,
    /// What to do about it; empty where `ok`.
    pub remedy: String,
}

/// Tries everything that capture needs. Changes nothing that outlives the call.
pub fn probe(probe: &Probe) -> Vec<Check> {
    vec![Check {
        name: "doctor".to_owned(),
        ok: false,
        found: probe.bpffs.display().to_string(),
        remedy: "not built yet".to_owned(),
    }]
}
