//! What capture leaves in the kernel: pins, and what is changed inside the pods' namespaces.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use super::{Failure, Stage};

/// Everything of a pod's network namespace that capture touches: policy rules, routes of all tables,
/// settings of the network stack. Link-local addresses come by themselves, some time after the interface.
const LOOK: &str = "ip -4 rule; ip -6 rule; ip -4 route show table all; ip -6 route show table all | grep -v fe80::; \
    cd /proc/sys/net/ipv4; grep . tcp_fwmark_accept conf/*/route_localnet conf/*/accept_local conf/*/rp_filter";

/// What a scene's pods look like from within: lines, each with its pod's name before it.
pub(super) struct Looks(BTreeSet<String>);

impl Looks {
    pub(super) fn of(stage: &Stage) -> Result<Self, Failure> {
        let mut lines = BTreeSet::new();
        for pod in [&stage.fhir, &stage.client, &stage.stranger] {
            let output = pod.command("sh").args(["-c", LOOK]).output()?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            lines.extend(text.lines().map(|line| format!("{}: {}", pod.name(), line.trim())));
        }
        Ok(Self(lines))
    }

    /// What is there now and was not before, or the other way round; nothing where all is the same.
    pub(super) fn change(&self, now: &Self) -> Option<String> {
        let mut changes = self.0.symmetric_difference(&now.0);
        changes.next().cloned()
    }
}

/// The pinned links of all pods: one for each program that is attached.
pub(super) fn links(stage: &Stage) -> usize {
    files(&stage.node.pins()).iter().filter(|path| path.iter().any(|part| part == "links")).count()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let found = entries.flat_map(|entry| {
        let path = entry.path();
        if path.is_dir() { files(&path) } else { vec![path] }
    });
    found.collect()
}
