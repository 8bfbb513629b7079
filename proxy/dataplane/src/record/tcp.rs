//! The stories of raw TCP connections.

use std::{net::SocketAddr, sync::Arc};

use mesh::Snapshot;
use observe::{
    Record,
    record::{Party, Protocol, Reporter},
};

use super::{Labels, service_of_host};
use crate::{
    Refusal,
    capture::Pod,
    forward::{Carried, End},
    refusal::UpstreamFault,
    reply,
};

fn begin(peer: SocketAddr) -> Box<Record> {
    let mut story = Box::new(Record::default());
    story.protocol = Protocol::Tcp;
    story.flags = "-";
    story.token = "none";
    story.source.address = Some(peer);
    story
}

/// A captured pod's connection to somewhere that is not a captured pod.
pub(crate) fn outside(
    (pod, snapshot): (&Arc<Pod>, &Arc<Snapshot>),
    address: SocketAddr,
    labels: &Labels,
) -> Box<Record> {
    let own = pod.addresses.iter().find(|ip| ip.is_ipv4() == address.is_ipv4());
    let own = own.or_else(|| pod.addresses.first()).copied().unwrap_or(address.ip());
    let mut story = begin(SocketAddr::new(own, 0));
    story.reporter = Reporter::Source;
    story.snapshot = snapshot.version;
    story.upstream = Some(address);
    if let Some(workload) = snapshot.workload(&pod.name) {
        let card = labels.card(snapshot, workload);
        story.source.workload = Some(Arc::clone(&card.labels));
        story.source.principal = Some(Arc::clone(&card.principal));
        story.from_kernel = true;
    }
    story.destination.address = Some(address);
    if let Some(workload) = snapshot.workload_at(address.ip()) {
        let card = labels.card(snapshot, workload);
        story.destination.workload = Some(Arc::clone(&card.labels));
        story.service = card.service(None);
    } else if let Some(service) = snapshot.service_at(address.ip(), address.port()) {
        story.service = service_of_host(&service.host);
    }
    story
}

/// The node's own connection into a captured pod.
pub(crate) fn from_host(peer: SocketAddr, address: SocketAddr) -> Box<Record> {
    let mut story = begin(peer);
    "host".clone_into(&mut story.details);
    story.destination = Party { address: Some(address), ..Party::default() };
    story.upstream = Some(address);
    story
}

/// What went through, and how it ended.
pub(crate) fn carried(story: &mut Record, carried: Carried) {
    (story.request_bytes, story.response_bytes) = (carried.up, carried.down);
    let (flags, details) = match carried.end {
        End::Closed => ("-", "closed"),
        End::ClientReset => ("DC", "downstream_remote_disconnect"),
        End::ServerReset => ("UC", "upstream_remote_disconnect"),
        End::Cut("policy_changed") => ("-", "policy_changed"),
        End::Cut(why) => ("DC", why),
    };
    story.flags = flags;
    details.clone_into(&mut story.details);
}

/// The other side could not be reached.
pub(crate) fn unreached(story: &mut Record, fault: UpstreamFault) {
    let refusal = Refusal::Upstream(fault);
    story.flags = reply::flags(&refusal);
    story.details = reply::details(&refusal).into_owned();
}
