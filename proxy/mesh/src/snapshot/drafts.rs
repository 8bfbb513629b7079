//! Workloads as manifests and settings describe them, before policies are compiled.
//!
//! A workload is a Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job,
//! CronJob or bare Pod. A Pod that one of these made adds its address to its maker.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use policy::{Object, Place, Problem, WorkloadName, manifest::codes};
use serde::Deserialize;

use super::{
    enrolment, null_is_default,
    pods::{Pod, PodSpec, Probe},
};
use crate::settings::{FhirSettings, MeshSettings, TunnelSettings, WorkloadSettings};

/// Made-up addresses come from here: reserved (RFC 1112 §4), so nobody's real one.
const MADE_UP: u32 = 0xf000_0000;
/// 2^28 of them, but for the last, which is the broadcast address.
const MADE_UP_COUNT: u32 = 0x0fff_ffff;

/// A workload on its way into a snapshot.
#[derive(Debug, Clone, Default)]
pub(super) struct Draft {
    pub(super) labels: BTreeMap<String, String>,
    pub(super) service_account: Option<String>,
    /// Addresses of its pods, the first that was found first.
    pub(super) ips: Vec<IpAddr>,
    pub(super) ports: BTreeMap<String, u16>,
    pub(super) enrolled: Option<bool>,
    pub(super) upstream: BTreeMap<u16, SocketAddr>,
    pub(super) strict_target: Option<bool>,
    pub(super) fhir: Option<FhirSettings>,
    /// Annotations of the template, or of the first bare pod.
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) probes: Vec<Probe>,
    pub(super) pods: Vec<Pod>,
    pub(super) tunnel: Option<TunnelSettings>,
}

/// Drafts by name.
pub(super) type Drafts = BTreeMap<WorkloadName, Draft>;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct OwnedMetadata {
    uid: Option<String>,
    #[serde(rename = "ownerReferences")]
    #[serde(deserialize_with = "null_is_default")]
    owners: Vec<Owner>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Owner {
    kind: String,
    name: String,
    controller: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PodStatus {
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    #[serde(deserialize_with = "null_is_default")]
    pod_ips: Vec<PodIp>,
    phase: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PodIp {
    ip: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct MakerSpec {
    #[serde(deserialize_with = "null_is_default")]
    template: Template,
    job_template: Option<JobTemplate>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct JobTemplate {
    #[serde(deserialize_with = "null_is_default")]
    spec: JobSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct JobSpec {
    #[serde(deserialize_with = "null_is_default")]
    template: Template,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Template {
    #[serde(deserialize_with = "null_is_default")]
    metadata: TemplateMetadata,
    #[serde(deserialize_with = "null_is_default")]
    spec: PodSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TemplateMetadata {
    #[serde(deserialize_with = "null_is_default")]
    labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_is_default")]
    annotations: BTreeMap<String, String>,
}

/// Reads the workloads among `objects`.
pub(super) fn read(objects: &[&Object], problems: &mut Vec<Problem>) -> Drafts {
    let mut drafts = Drafts::new();
    let (pods, makers): (Vec<&Object>, Vec<&Object>) =
        objects.iter().copied().partition(|object| object.kind == "Pod");
    for object in makers {
        if let Err(problem) = read_maker(object, &mut drafts) {
            problems.push(problem);
        }
    }
    for object in pods {
        if let Err(problem) = read_pod(object, &mut drafts) {
            problems.push(problem);
        }
    }
    drafts
}

fn read_maker(object: &Object, drafts: &mut Drafts) -> Result<(), Problem> {
    // What another object made is that object's: a Deployment's ReplicaSet, a CronJob's Job.
    if object.metadata.name.is_empty() || controller(owned(object)?).is_some() {
        return Ok(());
    }
    let spec = object.field::<MakerSpec>("spec")?.unwrap_or_default();
    let template = match spec.job_template {
        Some(job) => job.spec.template,
        None => spec.template,
    };
    let draft = drafts.entry(name(object.namespace(), &object.metadata.name)).or_default();
    draft.take_pod(&template.spec);
    draft.labels = template.metadata.labels;
    draft.annotations = template.metadata.annotations;
    Ok(())
}

fn read_pod(object: &Object, drafts: &mut Drafts) -> Result<(), Problem> {
    let mut owned = owned(object)?;
    let uid = owned.uid.take().unwrap_or_default();
    let owner = controller(owned);
    let spec = object.field::<PodSpec>("spec")?.unwrap_or_default();
    let status = object.field::<PodStatus>("status")?.unwrap_or_default();
    let maker = owner.as_ref().map(|owner| maker_name(owner, &object.metadata.labels));
    let own = maker.as_deref().unwrap_or(&object.metadata.name);
    if own.is_empty() {
        return Ok(());
    }
    let known = name(object.namespace(), own);
    let fresh = !drafts.contains_key(&known);
    let draft = drafts.entry(known).or_default();
    if fresh {
        draft.take_pod(&spec);
        draft.labels = object.metadata.labels.clone();
        draft.annotations = object.metadata.annotations.clone();
    }
    let mut pod = Pod {
        name: object.metadata.name.clone(),
        uid,
        ips: Vec::new(),
        enrolled: false,
        labels: object.metadata.labels.clone(),
        annotations: object.metadata.annotations.clone(),
        host_network: spec.host_network == Some(true),
        finished: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
    };
    // A pod on the node's network has the node's address, which says nothing about it; that of a
    // finished pod may be another's by now.
    if !pod.host_network && !pod.finished {
        pod.ips = addresses(object, &status)?;
        for ip in &pod.ips {
            if !draft.ips.contains(ip) {
                draft.ips.push(*ip);
            }
        }
    }
    draft.pods.push(pod);
    Ok(())
}

fn addresses(object: &Object, status: &PodStatus) -> Result<Vec<IpAddr>, Problem> {
    let mut addresses = Vec::new();
    let texts = status.pod_ip.iter().chain(status.pod_ips.iter().map(|ip| &ip.ip));
    for text in texts.filter(|text| !text.is_empty()) {
        let ip = text.parse::<IpAddr>().map_err(|_| {
            let place = object.place_of(&["status", "podIP"]);
            let message = format!("`{text}` is no IP address");
            Problem::error(codes::INVALID_VALUE, place, "status.podIP", message).of(object.label())
        })?;
        let ip = ip.to_canonical();
        if !addresses.contains(&ip) {
            addresses.push(ip);
        }
    }
    Ok(addresses)
}

fn owned(object: &Object) -> Result<OwnedMetadata, Problem> {
    Ok(object.field::<OwnedMetadata>("metadata")?.unwrap_or_default())
}

fn controller(metadata: OwnedMetadata) -> Option<Owner> {
    metadata.owners.into_iter().find(|owner| owner.controller == Some(true))
}

/// The workload that made a pod: a Deployment's ReplicaSet bears the pod's template hash.
fn maker_name(owner: &Owner, labels: &BTreeMap<String, String>) -> String {
    let hash = labels.get("pod-template-hash").filter(|_| owner.kind == "ReplicaSet");
    let deployment = hash.and_then(|hash| owner.name.strip_suffix(hash.as_str())?.strip_suffix('-'));
    deployment.unwrap_or(&owner.name).to_owned()
}

fn name(namespace: &str, name: &str) -> WorkloadName {
    WorkloadName { namespace: namespace.to_owned(), name: name.to_owned() }
}

impl Draft {
    fn take_pod(&mut self, spec: &PodSpec) {
        let account = spec.service_account_name.as_ref().or(spec.service_account.as_ref());
        self.service_account = account.filter(|name| !name.is_empty()).cloned();
        for port in spec.ports() {
            if let Some(name) = port.name.as_ref().filter(|name| !name.is_empty()) {
                self.ports.entry(name.clone()).or_insert(port.container_port);
            }
        }
        self.probes = spec.probes();
    }

    /// Adds what the settings say; they win where both speak.
    fn merge(&mut self, settings: &WorkloadSettings) {
        if !settings.labels.is_empty() {
            self.labels.clone_from(&settings.labels);
        }
        if settings.service_account.is_some() {
            self.service_account.clone_from(&settings.service_account);
        }
        if let Some(ip) = settings.ip.map(|ip| ip.to_canonical()) {
            self.ips.retain(|known| *known != ip);
            self.ips.insert(0, ip);
        }
        self.ports.extend(settings.ports.clone());
        self.upstream.extend(settings.upstream.iter().map(|(port, address)| (*port, canonical(*address))));
        self.enrolled = settings.enrolled.or(self.enrolled);
        self.strict_target = settings.strict_target.or(self.strict_target);
        if settings.fhir.is_some() {
            self.fhir.clone_from(&settings.fhir);
        }
    }

    /// Whether it is in the mesh, by settings or labels.
    pub(super) fn is_enrolled(&self, namespace: Option<&BTreeMap<String, String>>) -> bool {
        self.enrolled.unwrap_or_else(|| enrolment::enrolled(&self.labels, namespace))
    }

    /// Its pods, each with its own word on enrolment.
    pub(super) fn pods(&self, namespace: Option<&BTreeMap<String, String>>) -> Vec<Pod> {
        let enrolled = |pod: &Pod| {
            self.enrolled.unwrap_or_else(|| enrolment::enrolled(&pod.labels, namespace))
                && !pod.host_network
                && !pod.finished
        };
        self.pods.iter().map(|pod| Pod { enrolled: enrolled(pod), ..pod.clone() }).collect()
    }
}

/// One spelling for an address: IPv4 in IPv6 is IPv4.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Adds the workloads of the settings.
pub(super) fn merge(drafts: &mut Drafts, settings: &MeshSettings, problems: &mut Vec<Problem>) {
    for (index, workload) in settings.workloads.iter().enumerate() {
        match workload.name.parse::<WorkloadName>() {
            Ok(name) => drafts.entry(name).or_default().merge(workload),
            Err(error) => problems.push(setting(&format!("mesh.workloads[{index}].name"), error.to_string())),
        }
    }
}

/// A problem with a setting: settings carry no places.
pub(super) fn setting(field: &str, message: String) -> Problem {
    let place = Place { file: "settings".into(), line: 1, column: 1 };
    Problem::error(crate::codes::BAD_SETTINGS, place, field, message)
}

/// Gives every workload without an address one of its own that is nobody's: the same as long as
/// its name stays and no other workload's happens to take it.
pub(super) fn make_up_addresses(drafts: &mut Drafts) {
    let mut taken: HashSet<IpAddr> = drafts.values().flat_map(|draft| draft.ips.clone()).collect();
    for (name, draft) in drafts.iter_mut().filter(|(_, draft)| draft.ips.is_empty()) {
        let address = made_up(&name.to_string(), |ip| taken.contains(ip));
        taken.insert(address);
        draft.ips.push(address);
    }
}

/// A made-up address for `name` that is not taken.
pub(super) fn made_up(name: &str, is_taken: impl Fn(&IpAddr) -> bool) -> IpAddr {
    // FNV-1a: small, and the same in every process.
    let hash =
        name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let address = |offset: u32| {
        let host = hash.wrapping_add(offset) % MADE_UP_COUNT;
        IpAddr::V4(Ipv4Addr::from_bits(MADE_UP | host))
    };
    // There are more addresses than workloads, so one is free.
    (0..MADE_UP_COUNT).map(address).find(|ip| !is_taken(ip)).unwrap_or_else(|| address(0))
}

/// Whether an address is one that [`make_up_addresses`] gives: nothing is reached there.
#[must_use]
pub fn is_made_up(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if ip.to_bits() >= MADE_UP)
}

/// Addresses that two workloads claim: they identify neither.
pub(super) fn ambiguous(drafts: &Drafts, problems: &mut Vec<Problem>) -> BTreeSet<IpAddr> {
    let mut owners: BTreeMap<IpAddr, Vec<&WorkloadName>> = BTreeMap::new();
    for (name, draft) in drafts {
        for ip in &draft.ips {
            owners.entry(*ip).or_default().push(name);
        }
    }
    owners.retain(|_, names| names.len() > 1);
    for (ip, names) in &owners {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let text = format!("{ip} is the address of {}: it identifies neither", names.join(" and "));
        let place = Place { file: "snapshot".into(), line: 1, column: 1 };
        problems.push(Problem::warning(crate::codes::AMBIGUOUS_ADDRESS, place, "", text));
    }
    owners.into_keys().collect()
}
