//! What the manifests say of pods: who is in the mesh.

use std::collections::HashMap;

use mesh::Snapshot;
use policy::WorkloadName;

/// Opts a pod in to socket acceleration when it says `enabled`.
const ACCELERATION: &str = "fhirward.dev/socket-acceleration";
/// On the object that stands for a static pod: the uid under which the node runs it.
const CONFIG_HASH: &str = "kubernetes.io/config.hash";

/// The pods and workloads of one snapshot.
#[derive(Debug, Default)]
pub(super) struct Roster {
    workloads: HashMap<WorkloadName, Member>,
    pods: HashMap<String, Member>,
}

/// What the manifests say of one pod, or of any pod of a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    /// Its workload.
    pub(super) workload: WorkloadName,
    /// In the mesh.
    pub(super) opted_in: bool,
    /// On the node's network.
    pub(super) host_network: bool,
    /// Its sockets are to be accelerated.
    pub(super) accelerated: bool,
}

impl Roster {
    /// Of a snapshot.
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let mut roster = Self::default();
        for workload in snapshot.workloads() {
            let accelerated = |annotations: &std::collections::BTreeMap<String, String>| {
                annotations.get(ACCELERATION).map(|value| value == "enabled")
            };
            let of_workload = accelerated(&workload.annotations).unwrap_or(false);
            for pod in &workload.pods {
                let uid = pod.annotations.get(CONFIG_HASH).unwrap_or(&pod.uid);
                if uid.is_empty() {
                    continue;
                }
                let member = Member {
                    workload: workload.name.clone(),
                    opted_in: pod.enrolled,
                    host_network: pod.host_network,
                    accelerated: accelerated(&pod.annotations).unwrap_or(of_workload),
                };
                roster.pods.insert(uid.clone(), member);
            }
            let member = Member {
                workload: workload.name.clone(),
                opted_in: workload.enrolled,
                host_network: false,
                accelerated: of_workload,
            };
            roster.workloads.insert(workload.name.clone(), member);
        }
        roster
    }

    /// Any pod of a workload.
    pub(super) fn workload(&self, name: &WorkloadName) -> Option<&Member> {
        self.workloads.get(name)
    }

    /// The pod that the node runs under this uid.
    pub(super) fn pod(&self, uid: &str) -> Option<&Member> {
        self.pods.get(uid)
    }
}

#[cfg(test)]
impl Roster {
    /// Of workloads by name, and pods by uid.
    pub(super) fn made(workloads: Vec<Member>, pods: Vec<(&str, Member)>) -> Self {
        Self {
            workloads: workloads.into_iter().map(|member| (member.workload.clone(), member)).collect(),
            pods: pods.into_iter().map(|(uid, member)| (uid.to_owned(), member)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const MANIFESTS: &str = r#"
kind: Namespace
apiVersion: v1
metadata: {name: data, labels: {fhirward.dev/mesh: enabled}}
---
kind: Deployment
apiVersion: apps/v1
metadata: {name: fhir, namespace: data}
spec:
  selector: {matchLabels: {app: fhir}}
  template:
    metadata: {labels: {app: fhir}, annotations: {fhirward.dev/socket-acceleration: enabled}}
    spec: {containers: []}
---
kind: Pod
apiVersion: v1
metadata:
  name: static-node
  namespace: data
  uid: aaaaaaaa-0000-0000-0000-000000000001
  annotations: {kubernetes.io/config.hash: 0123456789abcdef0123456789abcdef}
spec: {hostNetwork: true, containers: []}
---
kind: Pod
apiVersion: v1
metadata:
  name: out
  namespace: data
  uid: aaaaaaaa-0000-0000-0000-000000000002
  labels: {fhirward.dev/mesh: disabled}
spec: {containers: []}
"#;

    #[test]
    fn pods_and_workloads_are_as_the_manifests_say() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mesh.yaml");
        std::fs::write(&file, MANIFESTS).unwrap();
        let (snapshot, _) = Snapshot::load(&[file], &mesh::MeshSettings::default()).unwrap();
        let roster = Roster::of(&snapshot);
        let fhir = roster.workload(&"data/fhir".parse().unwrap()).unwrap();
        assert!(fhir.opted_in && fhir.accelerated && !fhir.host_network, "{fhir:?}");
        let fixed = roster.pod("0123456789abcdef0123456789abcdef").unwrap();
        assert!(fixed.host_network && !fixed.accelerated, "{fixed:?}");
        assert_eq!(roster.pod("aaaaaaaa-0000-0000-0000-000000000001"), None);
        assert!(!roster.pod("aaaaaaaa-0000-0000-0000-000000000002").unwrap().opted_in);
        assert_eq!(roster.pod(""), None);
    }
}
