//! What capture leaves in the kernel: pins, and what is changed inside the pods' namespaces.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{Failure, Stage};
use crate::pods::Pod;

/// Everything of a pod's network namespace that capture touches: policy rules, routes of all tables,
/// settings of the network stack.
const LOOK: &str = "ip rule; ip -6 rule; ip route show table all; ip -6 route show table all | sed 's/ expires.*//'; \
    cat /proc/sys/net/ipv4/tcp_fwmark_accept /proc/sys/net/ipv4/conf/*/route_localnet \
    /proc/sys/net/ipv4/conf/*/accept_local /proc/sys/net/ipv4/conf/*/rp_filter";

/// What a scene's pods look like from within.
#[derive(PartialEq, Eq)]
pub(super) struct Looks(Vec<String>);

impl Looks {
    pub(super) fn of(stage: &Stage) -> Result<Self, Failure> {
        let pods = [&stage.fhir, &stage.client, &stage.stranger];
        Ok(Self(pods.into_iter().map(look).collect::<Result<_, _>>()?))
    }
}

fn look(pod: &Pod) -> Result<String, Failure> {
    let output = pod.command("sh").args(["-c", LOOK]).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
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
