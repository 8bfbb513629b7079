//! Everything that can be said of manifests without running them: for `fhirward check`.

use std::{collections::BTreeMap, path::PathBuf};

use policy::{Problem, istio::Policies, istio::WorkloadFacts};

use crate::{MeshSettings, Snapshot, Workload, read_objects, routing::GatewayKey};

/// What a check found.
#[derive(Debug, Default)]
pub struct Checked {
    /// Objects read.
    pub objects: usize,
    /// Objects by kind that are not used.
    pub unused: BTreeMap<String, usize>,
    /// Errors, warnings and notes, sorted by place, each once.
    pub problems: Vec<Problem>,
}

/// Reads the files and folders, builds the snapshot that they would make, and lints. The settings'
/// own `manifests` are not looked at.
#[must_use]
pub fn check(paths: &[PathBuf], settings: &MeshSettings) -> Checked {
    let (objects, mut problems) = read_objects(paths);
    let mut unused = BTreeMap::new();
    let mut workloads = Vec::new();
    match Snapshot::build(&objects, settings, 1) {
        Ok((snapshot, warnings)) => {
            problems.extend(warnings);
            let gateway = snapshot.gateway_workload(&ingress());
            workloads = snapshot.workloads().chain(gateway).map(|workload| facts(workload)).collect();
            unused = snapshot.unused_kinds;
        }
        Err(found) => problems.extend(found),
    }
    let mesh = settings.mesh_config();
    let (policies, _told_by_build) = Policies::read(&objects);
    problems.extend(policies.lint(&mesh, &objects, &workloads));
    let key = |problem: &Problem| (problem.place.clone(), problem.field.clone(), problem.code);
    problems.sort_by_key(key);
    problems.dedup_by_key(|problem| (key(problem), problem.message.clone()));
    Checked { objects: objects.len(), unused, problems }
}

/// Istio's own ingress gateway, which policies may select though no manifest describes it.
fn ingress() -> GatewayKey {
    GatewayKey { labels: BTreeMap::from([("istio".to_owned(), "ingressgateway".to_owned())]), port: 80 }
}

fn facts(workload: &Workload) -> WorkloadFacts {
    WorkloadFacts {
        name: workload.name.clone(),
        labels: workload.labels.clone(),
        services: workload.services.iter().map(|service| service.name.clone()).collect(),
        gateways: Vec::new(),
        gateway_classes: Vec::new(),
    }
}
