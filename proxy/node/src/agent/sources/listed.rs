//! Pods by hand: `capture.pods` of the settings.

use std::{collections::BTreeSet, io};

use policy::WorkloadName;

use super::{Candidate, Identity, Seen, Source, Whereabouts, inode_if_there, processes};
use crate::settings::PodSettings;

/// The pods of the settings.
#[derive(Debug)]
pub(in crate::agent) struct Listed(Vec<(WorkloadName, PodSettings)>);

impl Listed {
    /// Names were checked when the settings were read; one that is none is passed over.
    pub(in crate::agent) fn new(pods: &[PodSettings]) -> Self {
        Self(pods.iter().filter_map(|pod| Some((pod.name.parse().ok()?, pod.clone()))).collect())
    }
}

impl Source for Listed {
    fn look(&mut self, node: &BTreeSet<u64>) -> Seen {
        let mut seen = Seen::default();
        for (name, pod) in &self.0 {
            match look_at(name, pod, node) {
                Ok(candidate) => seen.pods.push(candidate),
                Err(error) => seen.troubles.push(format!("pod {name}: {error}")),
            }
        }
        seen
    }
}

fn look_at(name: &WorkloadName, pod: &PodSettings, node: &BTreeSet<u64>) -> io::Result<Candidate> {
    let cgroup_id = inode_if_there(&pod.cgroup)?;
    let netns = match inode_if_there(&pod.netns) {
        Ok(Some(inode)) if node.contains(&inode) => Whereabouts::Node,
        Ok(Some(inode)) => Whereabouts::At { path: pod.netns.clone(), inode },
        Ok(None) => Whereabouts::Absent { idle: processes::is_idle(&pod.cgroup)? },
        Err(_) => Whereabouts::Unsure,
    };
    Ok(Candidate {
        identity: Identity::Workload(name.clone(), pod.socket_acceleration),
        cgroup: pod.cgroup.clone(),
        cgroup_id,
        netns,
    })
}
