//! The routes of one gateway listener, by host.
//!
//! Source: buildGatewayHTTPRouteConfig of istio/istio: Gateway hosts and VirtualService hosts are
//! intersected, routes of one host are merged in order, catch-alls last (`SortVHostRoutes`).

use std::sync::Arc;

use super::{
    GatewayKey, RouteQuery, Routed,
    action::Route,
    api::ApiSources,
    hosts::{HostMap, host_of},
    istio::IstioSources,
    redirect,
};

/// All gateways and routes of a snapshot, checked, before a listener asks for its own.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    pub(crate) istio: IstioSources,
    pub(crate) api: ApiSources,
}

/// One host of a listener.
#[derive(Debug, Clone, Default)]
pub(crate) struct VirtualHost {
    /// A server with `tls.httpsRedirect` names it.
    pub(crate) https_only: bool,
    pub(crate) routes: Vec<Arc<Route>>,
}

/// The routes of one gateway listener.
#[derive(Debug, Default)]
pub(crate) struct Table {
    port: u16,
    /// For plaintext requests: HTTP servers.
    plain: HostMap<VirtualHost>,
    /// For requests over TLS: HTTPS servers and HTTP servers.
    tls: HostMap<VirtualHost>,
}

impl Table {
    /// The routes for the listener `key`, whose proxy runs in `namespace`.
    pub(crate) fn assemble(sources: &Sources, key: &GatewayKey, namespace: &str) -> Self {
        let hosts = |tls: bool| {
            let mut hosts = HostMap::<VirtualHost>::default();
            sources.istio.add_hosts(&mut hosts, key, namespace, tls);
            sources.api.add_hosts(&mut hosts, key, tls);
            for host in hosts.values_mut() {
                // Stable: within each half the order stays.
                host.routes.sort_by_key(|route| route.condition.is_catch_all());
            }
            hosts
        };
        Self { port: key.port, plain: hosts(false), tls: hosts(true) }
    }

    pub(crate) fn route(&self, query: &RouteQuery<'_>) -> Routed {
        let hosts = if query.scheme == "https" { &self.tls } else { &self.plain };
        let Some(host) = hosts.find(&host_of(query.authority)) else { return Routed::NotFound };
        if host.https_only && query.scheme != "https" {
            return redirect::to_https(query);
        }
        match host.routes.iter().find(|route| route.condition.matches(query)) {
            Some(route) => route.answer(query, self.port),
            None => Routed::NotFound,
        }
    }
}
