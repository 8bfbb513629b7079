//! Istio's Gateway and VirtualService.

mod gateway;
mod matching;
pub(crate) mod spec;
mod terms;
mod virtual_service;

use std::{collections::HashMap, sync::Arc};

use policy::{Object, Problem};

use super::{
    GatewayKey,
    action::Route,
    destination::Registry,
    hosts::{HostMap, intersect},
    table::VirtualHost,
};
pub(crate) use gateway::{Gateway, check_host};
use virtual_service::VirtualService;

/// Gateways and VirtualServices of a snapshot, checked.
#[derive(Debug, Default)]
pub(crate) struct IstioSources {
    gateways: Vec<Gateway>,
    /// In the order in which their routes are merged: by creation time, then name.
    services: Vec<VirtualService>,
    /// Indexes into `services`, by `namespace/name` of the gateway.
    by_gateway: HashMap<String, Vec<usize>, ahash::RandomState>,
}

impl IstioSources {
    /// Reads the Gateways and VirtualServices among `objects`.
    pub(crate) fn read(objects: &[&Object], registry: &Registry, problems: &mut Vec<Problem>) -> Self {
        let mut sources = Self::default();
        for object in objects {
            match object.kind.as_str() {
                "Gateway" => sources.gateways.extend(Gateway::read(object, problems)),
                "VirtualService" => {
                    sources.services.extend(VirtualService::read(object, registry, problems));
                }
                _ => {}
            }
        }
        sources.services.sort_by(|one, other| one.age.cmp(&other.age));
        for (index, service) in sources.services.iter().enumerate() {
            for gateway in &service.gateways {
                sources.by_gateway.entry(gateway.clone()).or_default().push(index);
            }
        }
        sources
    }

    pub(crate) fn gateways(&self) -> &[Gateway] {
        &self.gateways
    }

    /// Adds the hosts that a listener serves, with their routes.
    pub(crate) fn add_hosts(
        &self,
        hosts: &mut HostMap<VirtualHost>,
        key: &GatewayKey,
        namespace: &str,
        tls: bool,
    ) {
        for gateway in self.gateways.iter().filter(|gateway| gateway.selects(key)) {
            let services = self.services_of(&gateway.name, namespace);
            let servers = gateway.servers.iter();
            for server in servers.filter(|server| server.port == key.port && (tls || !server.tls)) {
                for service in &services {
                    let routes = service.routes_for(key, &gateway.name, namespace);
                    add_service(hosts, server, service, &routes);
                }
                if server.https_redirect {
                    for (_, host) in &server.hosts {
                        hosts.entry(host).https_only = true;
                    }
                }
            }
        }
    }

    /// The VirtualServices that a gateway may use: those exported to its proxy's namespace, the
    /// most narrowly exported first (`VirtualServicesForGateway`).
    fn services_of(&self, gateway: &str, namespace: &str) -> Vec<&VirtualService> {
        let indexes = self.by_gateway.get(gateway).map(Vec::as_slice).unwrap_or_default();
        let mut services: Vec<_> = indexes
            .iter()
            .filter_map(|index| self.services.get(*index))
            .filter_map(|service| Some((service.visibility(namespace)?, service)))
            .collect();
        services.sort_by_key(|(rank, _)| *rank);
        services.into_iter().map(|(_, service)| service).collect()
    }
}

fn add_service(
    hosts: &mut HostMap<VirtualHost>,
    server: &gateway::Server,
    service: &VirtualService,
    routes: &[Arc<Route>],
) {
    // istiod leaves a VirtualService without routes for this gateway out: no empty host of its own.
    if routes.is_empty() {
        return;
    }
    let mut done: Vec<&str> = Vec::new();
    for (scope, wanted) in &server.hosts {
        if scope.as_ref().is_some_and(|scope| *scope != service.namespace) {
            continue;
        }
        for host in &service.hosts {
            let Some(common) = intersect(wanted, host) else { continue };
            if done.contains(&common) {
                continue;
            }
            done.push(common);
            let entry = hosts.entry(common);
            entry.routes.extend(routes.iter().cloned());
            entry.https_only |= server.https_redirect;
        }
    }
}
