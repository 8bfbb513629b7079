//! Gateway API: GatewayClass, Gateway, HTTPRoute, ReferenceGrant.
//!
//! Source: gateway-api.sigs.k8s.io v1 (HTTPRouteRule's precedence, listener isolation).

mod filters;
mod gateway;
mod http_route;
mod matching;
mod spec;

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use policy::{Object, Problem};

use super::{
    GatewayKey,
    destination::Registry,
    hosts::{HostMap, intersect, is_subset},
    table::VirtualHost,
};
use gateway::Listener;
pub(crate) use gateway::{GATEWAY_NAME_LABEL, Gateway};
use http_route::{Grants, HttpRoute, Rule};

/// Labels by namespace.
pub(crate) type NamespaceLabels = BTreeMap<String, BTreeMap<String, String>>;

/// Gateways and HTTPRoutes of a snapshot, checked.
#[derive(Debug, Default)]
pub(crate) struct ApiSources {
    gateways: Vec<Gateway>,
    routes: Vec<HttpRoute>,
    namespaces: NamespaceLabels,
}

impl ApiSources {
    /// Reads the Gateway API objects among `objects`.
    pub(crate) fn read(
        objects: &[&Object],
        namespaces: NamespaceLabels,
        registry: &Registry,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let of = |kind: &'static str| objects.iter().filter(move |object| object.kind == kind);
        let classes: HashSet<String> =
            of("GatewayClass").filter_map(|object| gateway::own_class(object, problems)).collect();
        let gateways = of("Gateway").filter_map(|object| Gateway::read(object, &classes, problems)).collect();
        let mut grants = Grants::default();
        for object in of("ReferenceGrant") {
            grants.add(object, problems);
        }
        let routes = of("HTTPRoute")
            .filter_map(|object| HttpRoute::read(object, &grants, registry, problems))
            .collect();
        Self { gateways, routes, namespaces }
    }

    /// The Gateways that a listener is.
    pub(crate) fn gateways_for<'a>(&'a self, key: &'a GatewayKey) -> impl Iterator<Item = &'a Gateway> {
        self.gateways.iter().filter(|gateway| gateway.is_served_by(key))
    }

    /// All Gateways.
    pub(crate) fn gateways(&self) -> &[Gateway] {
        &self.gateways
    }

    /// Adds the hosts that a listener serves, with their routes.
    pub(crate) fn add_hosts(&self, hosts: &mut HostMap<VirtualHost>, key: &GatewayKey, tls: bool) {
        let listeners: Vec<(&Gateway, &Listener)> = self
            .gateways_for(key)
            .flat_map(|gateway| gateway.listeners.iter().map(move |listener| (gateway, listener)))
            .filter(|(_, listener)| listener.port == key.port && (tls || !listener.tls))
            .collect();
        let mut rules: BTreeMap<String, Vec<&Rule>> = BTreeMap::new();
        for (gateway, listener) in &listeners {
            // A host without routes is a 404 of its own: no wider listener answers for it.
            rules.entry(listener.hostname.clone()).or_default();
            for route in self.attached(gateway, listener) {
                for host in &route.hostnames {
                    let Some(common) = intersect(&listener.hostname, host) else { continue };
                    if !is_isolated(common, listener, &listeners) {
                        rules.entry(common.to_owned()).or_default().extend(&route.rules);
                    }
                }
            }
        }
        for (host, mut rules) in rules {
            rules.sort_by(|one, other| one.precedence.cmp(&other.precedence));
            // A route may come by two listeners.
            rules.dedup_by(|one, other| std::ptr::eq(*one, *other));
            let routes = rules.iter().map(|rule| Arc::clone(&rule.route));
            hosts.entry(&host).routes.extend(routes);
        }
    }

    fn attached<'a>(
        &'a self,
        gateway: &'a Gateway,
        listener: &'a Listener,
    ) -> impl Iterator<Item = &'a HttpRoute> {
        self.routes.iter().filter(move |route| {
            let labels = self.namespaces.get(&route.namespace);
            route.names(gateway, listener)
                && listener.admits(&gateway.name.namespace, &route.namespace, labels)
        })
    }
}

/// Whether a narrower listener of the same port and protocol takes the host's requests.
fn is_isolated(host: &str, listener: &Listener, listeners: &[(&Gateway, &Listener)]) -> bool {
    listeners.iter().any(|(_, other)| {
        other.tls == listener.tls
            && other.hostname != listener.hostname
            && is_subset(&other.hostname, &listener.hostname)
            && is_subset(host, &other.hostname)
    })
}
