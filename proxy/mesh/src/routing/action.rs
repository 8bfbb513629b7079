//! What a route does with a request that it is for.

use std::{sync::Arc, time::Duration};

use http::StatusCode;

use super::{
    ForwardTo, HeaderEdits, RetryPolicy, RouteQuery, Routed,
    condition::Condition,
    cors::{Cors, CorsOutcome},
    destination::Target,
    fault::{Fault, roll},
    redirect::Redirect,
    rewrite::PathRewrite,
};

/// Envoy's body of an injected abort.
const ABORT_BODY: &str = "fault filter abort";

/// A route: which requests, and what becomes of them. Immutable, shared by all its hosts.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    /// For records (`VirtualService datamesh/fhir-server http[0]`).
    pub(crate) name: Arc<str>,
    pub(crate) condition: Condition,
    pub(crate) terms: Arc<Terms>,
}

/// What becomes of a route's requests.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    pub(crate) fault: Fault,
    pub(crate) cors: Option<Cors>,
    pub(crate) action: Action,
}

/// The last step of a route.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    Redirect(Redirect),
    Respond { status: StatusCode, body: String },
    Forward(Forwarding),
}

/// Forwarding to one of several destinations.
#[derive(Debug, Clone)]
pub(crate) struct Forwarding {
    /// None has weight zero, unless it is the only one.
    pub(crate) destinations: Vec<Weighted>,
    pub(crate) rewrite: Option<PathRewrite>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) retries: RetryPolicy,
    /// The answer where a destination does not exist: 503 (Istio), 500 (Gateway API).
    pub(crate) unknown_status: StatusCode,
}

/// A destination and its share.
#[derive(Debug, Clone)]
pub(crate) struct Weighted {
    pub(crate) weight: u64,
    pub(crate) host: Arc<str>,
    /// As [`ForwardTo::sni`].
    pub(crate) sni: Option<Arc<str>>,
    pub(crate) target: Target,
    pub(crate) authority: Option<String>,
    pub(crate) request_headers: Arc<HeaderEdits>,
    pub(crate) response_headers: Arc<HeaderEdits>,
}

impl Route {
    /// What becomes of a request that fits the condition. Envoy's order: faults, CORS, the action.
    pub(crate) fn answer(&self, query: &RouteQuery<'_>, listener_port: u16) -> Routed {
        let delay = self.terms.fault.delay(query.dice);
        if let Some(status) = self.terms.fault.abort(query.dice) {
            return Routed::Respond { status, body: ABORT_BODY.to_owned(), delay };
        }
        let cors = match self.terms.cors.as_ref().map(|cors| cors.judge(query)) {
            Some(CorsOutcome::Preflight(headers)) => return Routed::Preflight { headers },
            Some(CorsOutcome::Continue(headers)) => headers,
            None => Vec::new(),
        };
        match &self.terms.action {
            Action::Redirect(redirect) => redirect.answer(query, &self.condition.path, listener_port),
            Action::Respond { status, body } => {
                Routed::Respond { status: *status, body: body.clone(), delay }
            }
            Action::Forward(forwarding) => {
                let route = self.forward(forwarding, query, listener_port);
                route.map_or_else(
                    |status| Routed::NoDestination { status },
                    |forward| Routed::Forward(Box::new(ForwardTo { delay, cors, ..forward })),
                )
            }
        }
    }

    fn forward(
        &self,
        forwarding: &Forwarding,
        query: &RouteQuery<'_>,
        listener_port: u16,
    ) -> Result<ForwardTo, StatusCode> {
        let picked = forwarding.pick(query.dice).ok_or(forwarding.unknown_status)?;
        let destination = picked.target.pick(listener_port, query.dice).ok_or_else(|| {
            let known = picked.target.is_known();
            if known { StatusCode::SERVICE_UNAVAILABLE } else { forwarding.unknown_status }
        })?;
        let path = match &forwarding.rewrite {
            Some(rewrite) => rewrite
                .apply(&self.condition.path, query.path)
                .map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?,
            None => None,
        };
        Ok(ForwardTo {
            route: Arc::clone(&self.name),
            host: Arc::clone(&picked.host),
            sni: picked.sni.clone(),
            destination,
            path,
            authority: picked.authority.clone(),
            request_headers: Arc::clone(&picked.request_headers),
            response_headers: Arc::clone(&picked.response_headers),
            cors: Vec::new(),
            timeout: forwarding.timeout,
            retries: forwarding.retries.clone(),
            delay: None,
        })
    }
}

impl Forwarding {
    fn pick(&self, dice: u64) -> Option<&Weighted> {
        if let [only] = self.destinations.as_slice() {
            return Some(only);
        }
        let total: u64 = self.destinations.iter().map(|one| one.weight).sum();
        let mut left = roll(dice, 1).checked_rem(total)?;
        self.destinations.iter().find(|one| match left.checked_sub(one.weight) {
            Some(rest) => {
                left = rest;
                false
            }
            None => true,
        })
    }
}
