//! From the descriptors of the agent to a pod that is served.

use std::{collections::HashMap, io, sync::Arc};

use dataplane::capture::{Change, Pod, PodId};
use mesh::{Probe, ProbeKind};
use policy::WorkloadName;
use tokio::net::TcpListener;

use super::{dns::Forwarding, fleet::Member, stock::Depot};
use crate::{
    agent::protocol::{FamilyListeners, PodInfo},
    settings::{PodSettings, ProbeSettings},
};

/// Makes members of the fleet.
pub(super) struct Recruiter {
    forwarding: Forwarding,
    /// Probes of the settings, by workload.
    probes: HashMap<String, Vec<Probe>>,
}

impl Recruiter {
    pub(super) fn new(forwarding: Forwarding, pods: &[PodSettings]) -> Self {
        let mut probes: HashMap<String, Vec<Probe>> = HashMap::new();
        for pod in pods {
            probes.entry(pod.name.clone()).or_default().extend(pod.probes.iter().map(probe));
        }
        Self { forwarding, probes }
    }

    /// Opens a pod's sockets: its DNS is served from now on, its listeners once the data plane has the
    /// change that is given.
    ///
    /// # Errors
    /// A descriptor is not the socket that it should be, or the name is none.
    pub(super) fn recruit(
        &self,
        id: PodId,
        info: PodInfo,
        families: Vec<FamilyListeners>,
        depot: &Arc<Depot>,
    ) -> io::Result<(Member, Change)> {
        let name: WorkloadName = info.workload.parse().map_err(io::Error::other)?;
        let probes = self.probes.get(&info.workload).cloned().unwrap_or_default();
        let (addresses, transparent) = (info.addresses.clone(), info.transparent);
        let pod = Arc::new(Pod { id, name, addresses, probes, transparent });
        let (mut inbound, mut outbound, mut dns) = (Vec::new(), Vec::new(), Vec::new());
        for family in families {
            inbound.push(TcpListener::from_std(family.inbound.into())?);
            outbound.push(TcpListener::from_std(family.outbound.into())?);
            dns.push(family.dns);
        }
        let member = Member::new(info, Arc::clone(&pod), depot);
        self.forwarding.serve(&member, dns)?;
        Ok((member, Change::Take { pod, inbound, outbound }))
    }
}

fn probe(settings: &ProbeSettings) -> Probe {
    let kind = match &settings.path {
        Some(path) => ProbeKind::Http { path: path.clone() },
        None => ProbeKind::Tcp,
    };
    Probe { port: settings.port, kind }
}
