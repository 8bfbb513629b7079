//! Where a captured pod's connection leads.

use std::{net::SocketAddr, sync::Arc};

use mesh::{Endpoint, Snapshot, Toward, Workload};

use super::pods::{Held, Table};

/// See the module.
#[derive(Debug)]
pub(super) enum Way {
    /// To the pod itself, by its own address: as a loopback connection.
    Own,
    /// Into a captured pod: one hop.
    Inside(Arc<Held>, SocketAddr),
    /// To somewhere else.
    Outside(Leaving),
    /// To a Service behind which nobody is.
    Nobody,
}

/// Out of a captured pod.
#[derive(Debug)]
pub(super) struct Leaving {
    pub(super) address: SocketAddr,
    /// How it is to be reached.
    pub(super) toward: Toward,
    /// The Service that was called, and its port.
    pub(super) service: Option<(Arc<str>, u16)>,
}

impl Leaving {
    fn to(snapshot: &Snapshot, address: SocketAddr) -> Self {
        Self { address, toward: snapshot.toward(address, None), service: None }
    }
}

/// A candidate behind a Service.
enum Behind {
    Inside(Arc<Held>, SocketAddr),
    /// The workload's, at this address.
    Elsewhere(Arc<Workload>, SocketAddr),
}

/// Finds the way to an address that a pod asked for. Of a Service's endpoints one is picked, by
/// `dice`: its address is resolved here, since whoever resolved it later could lead back to us.
pub(super) fn way(from: &Held, table: &Table, snapshot: &Snapshot, to: SocketAddr, dice: u64) -> Way {
    if from.pod.addresses.contains(&to.ip()) {
        return Way::Own;
    }
    let service = snapshot.service_at(to.ip(), to.port());
    let Some(service) = service else {
        // Whoever has the address: it is no Service's, whatever a pod has in its namespace.
        let here = table.at(to.ip(), snapshot);
        return match here {
            Some(held) => Way::Inside(Arc::clone(held), to),
            None => Way::Outside(Leaving::to(snapshot, to)),
        };
    };
    let Some(endpoints) = service.endpoints.as_deref() else {
        return Way::Outside(Leaving::to(snapshot, to));
    };
    let mut ways = Vec::new();
    for endpoint in endpoints {
        captured(endpoint, table, to, &mut ways);
        elsewhere(endpoint, (table, snapshot), to, &mut ways);
    }
    let picked = dice.checked_rem(u64::try_from(ways.len()).unwrap_or(0));
    let picked = picked.and_then(|picked| usize::try_from(picked).ok());
    let picked = picked.filter(|picked| *picked < ways.len()).map(|picked| ways.swap_remove(picked));
    match picked {
        None => Way::Nobody,
        Some(Behind::Inside(held, address)) => Way::Inside(held, address),
        Some(Behind::Elsewhere(workload, address)) => Way::Outside(Leaving {
            address,
            toward: snapshot.toward(address, Some(&workload)),
            service: Some((Arc::clone(&service.host), to.port())),
        }),
    }
}

/// The endpoint's pods that are captured here.
fn captured(endpoint: &Endpoint, table: &Table, to: SocketAddr, ways: &mut Vec<Behind>) {
    for held in table.of(&endpoint.workload.name) {
        let addresses = &held.pod.addresses;
        let same_family = addresses.iter().find(|ip| ip.is_ipv4() == to.is_ipv4());
        if let Some(ip) = same_family.or_else(|| addresses.first()) {
            ways.push(Behind::Inside(Arc::clone(held), SocketAddr::new(*ip, endpoint.port)));
        }
    }
}

/// The endpoint's other pods: one address of each.
fn elsewhere(
    endpoint: &Endpoint,
    (table, snapshot): (&Table, &Snapshot),
    to: SocketAddr,
    ways: &mut Vec<Behind>,
) {
    let Endpoint { workload, port } = endpoint;
    if let Some(address) = workload.upstream.get(port) {
        return match table.at(address.ip(), snapshot) {
            Some(_) => {} // One of the captured.
            None => ways.push(Behind::Elsewhere(Arc::clone(workload), *address)),
        };
    }
    let pods = workload.pods.iter().filter_map(|pod| {
        let same_family = pod.ips.iter().find(|ip| ip.is_ipv4() == to.is_ipv4());
        same_family.or_else(|| pod.ips.first()).copied()
    });
    let mut ips: Vec<_> = pods.collect();
    if ips.is_empty() && has_address(workload) && table.of(&workload.name).is_empty() {
        ips.push(workload.ip);
    }
    let elsewhere = ips.into_iter().filter(|ip| table.at(*ip, snapshot).is_none());
    let behind = |ip| Behind::Elsewhere(Arc::clone(workload), SocketAddr::new(ip, *port));
    ways.extend(elsewhere.map(behind));
}

/// Whether the workload's address is one that somebody gave it: made-up ones lead nowhere.
fn has_address(workload: &Workload) -> bool {
    !mesh::is_made_up(workload.ip)
}
