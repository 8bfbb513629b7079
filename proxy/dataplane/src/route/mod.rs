//! The ingress gateway: its own policies, then the route, then the destination's rooms, as if the
//! gateway had called the workload over mTLS (an in-process hop).

#[cfg(test)]
mod tests;

use std::sync::Arc;

use http::StatusCode;
use mesh::{
    Snapshot, Workload,
    routing::{ForwardTo, GatewayKey, RouteDestination, RouteQuery, Routed},
};
use policy::{Destination, Outcome, SpiffeId, Step, istio::MtlsMode};

use crate::{
    Engine, Refusal,
    accept::Connection,
    admit::{Admitted, Place},
    authorize::{self, Caller, Cleared, Passed, Terms},
    engine::{Walk, caller, fhir_format, stage},
    identify::{Identified, Tokens},
    record::{self, service_of_host},
    refusal::RouteAnswer,
    serve::head::{Onward, Request},
};

/// Service account of Istio's ingress gateway, for a gateway that no workload stands for.
const GATEWAY_ACCOUNT: &str = "istio-ingressgateway-service-account";

impl Engine {
    pub(crate) async fn at_gateway(
        &self,
        admitted: &Admitted<'_>,
        request: Box<Request>,
        walk: &mut Walk,
    ) -> Result<Cleared, Refusal> {
        let Place::Gateway { key, workload } = admitted.place() else {
            return Err(Refusal::Internal("a gateway request that did not come by a gateway"));
        };
        let gateway = workload.as_ref();
        let (connection, snapshot) = (admitted.connection(), admitted.snapshot());
        record::source_gateway(&mut walk.story, self.labels(), snapshot, gateway);
        let passed = self.gateway_policies(connection, key, gateway, request, walk).await?;
        let picked = self.route(snapshot, connection, key, &passed, walk)?;
        walk.story.route = Some(Arc::clone(&picked.route));
        self.send_on(admitted, gateway, passed, *picked, walk).await
    }

    /// The policies that select the gateway itself; its caller is the client.
    async fn gateway_policies(
        &self,
        connection: &Connection,
        key: &GatewayKey,
        gateway: Option<&Arc<Workload>>,
        request: Box<Request>,
        walk: &mut Walk,
    ) -> Result<Passed, Refusal> {
        let caller = caller(connection, &request).with_identity(connection.identity.as_ref());
        let Some(gateway) = gateway else {
            let identified = Identified::without_rules(request);
            return Ok(authorize::pass_gateway(identified, caller, None, &mut walk.trace)?.0);
        };
        walk.trace.note(|| stage(format!("gateway {} port {}", gateway.name, key.port)));
        let identified = self.identify(request, gateway, (connection.tls, Tokens::Spent), walk).await?;
        if identified.identity().is_some() {
            walk.story.token = "ok";
            walk.story.issuer = identified.issuer().cloned();
        }
        let at = Destination { ip: gateway.ip, port: key.port, sni: caller.sni };
        let asked = Some((&**gateway, at));
        let (passed, decision) = authorize::pass_gateway(identified, caller, asked, &mut walk.trace)?;
        walk.story.decision = decision;
        Ok(passed)
    }

    /// Picks the destination, or gives the answer that the route itself has.
    fn route(
        &self,
        snapshot: &Snapshot,
        connection: &Connection,
        key: &GatewayKey,
        passed: &Passed,
        walk: &mut Walk,
    ) -> Result<Box<ForwardTo>, Refusal> {
        let request = passed.request();
        let query = RouteQuery {
            scheme: if connection.tls { "https" } else { "http" },
            authority: request.authority(),
            method: request.method(),
            path: request.target().path(),
            query: request.target().query(),
            headers: request.headers(),
            dice: self.dice().throw(),
        };
        let routed = snapshot.route(key, &query);
        walk.trace.note(|| told(&routed));
        let answer = |status, headers, body, delay, details| {
            let answer = RouteAnswer { status, headers, body, delay, details };
            Err(Refusal::Answered(Box::new(answer)))
        };
        match routed {
            Routed::Forward(picked) => Ok(picked),
            Routed::NotFound => Err(Refusal::NoRoute),
            Routed::NoDestination { status } => Err(Refusal::NoDestination(status)),
            Routed::Preflight { headers } => {
                answer(StatusCode::OK, headers, String::new(), None, "cors_response")
            }
            Routed::Respond { status, body, delay } => {
                answer(status, Vec::new(), body, delay, "direct_response")
            }
            Routed::Redirect { status, location } => {
                let location = http::HeaderValue::from_str(&location)
                    .map_err(|_| Refusal::Internal("a redirect to what is no location"))?;
                let headers = vec![(http::header::LOCATION, location)];
                answer(status, headers, String::new(), None, "direct_response")
            }
        }
    }

    async fn send_on(
        &self,
        admitted: &Admitted<'_>,
        gateway: Option<&Arc<Workload>>,
        passed: Passed,
        picked: ForwardTo,
        walk: &mut Walk,
    ) -> Result<Cleared, Refusal> {
        let (connection, snapshot) = (admitted.connection(), admitted.snapshot());
        let client = connection.peer.ip().to_canonical();
        let onward = Onward {
            path: picked.path.as_deref(),
            authority: picked.authority.as_deref(),
            headers: &picked.request_headers,
        };
        let terms = Terms {
            timeout: picked.timeout,
            retries: Some(picked.retries),
            delay: picked.delay,
            response_headers: Some(picked.response_headers),
            cors: picked.cors,
            ..Terms::default()
        };
        match picked.destination {
            RouteDestination::External { address } => {
                let passed = passed.leave(onward, client)?;
                record::target(&mut walk.story, passed.request());
                walk.story.service = service_of_host(&picked.host);
                Ok(authorize::leave_mesh(passed, address, terms))
            }
            RouteDestination::Workload { workload, port } => {
                let to = (&workload, port);
                let host = Some(&picked.host);
                record::destination(&mut walk.story, self.labels(), snapshot, to, host);
                let request = passed.into_request().reroute(onward, workload.target_rules, client)?;
                record::target(&mut walk.story, &request);
                walk.reply.fhir = fhir_format(&workload, request.headers(), request.target().query());
                // With DISABLE the workload's side takes plaintext only: nobody vouches for the caller.
                let verified = workload.policy.mtls_mode(port) != MtlsMode::Disable;
                walk.story.mutual_tls = verified;
                let identity = verified.then(|| gateway_identity(snapshot, gateway));
                let caller = Caller {
                    ip: gateway.map_or(connection.local.ip(), |gateway| gateway.ip),
                    remote_ip: client,
                    identity: identity.as_ref(),
                    sni: None,
                    tls: connection.tls,
                    called: None,
                };
                let toward = snapshot.toward(workload.upstream(port), Some(&workload));
                let terms = Terms { sni: picked.sni, ..terms.toward(Some(toward)) };
                self.at_workload(to, request, caller, terms, walk).await
            }
        }
    }
}

fn gateway_identity(snapshot: &Snapshot, gateway: Option<&Arc<Workload>>) -> SpiffeId {
    gateway.map_or_else(
        || SpiffeId {
            trust_domain: snapshot.mesh.trust_domain.clone(),
            namespace: snapshot.mesh.root_namespace.clone(),
            service_account: GATEWAY_ACCOUNT.to_owned(),
        },
        |gateway| gateway.identity.clone(),
    )
}

fn told(routed: &Routed) -> Step {
    let (outcome, detail) = match routed {
        Routed::NotFound => (Outcome::NotMatched, "no server, host or route fits".to_owned()),
        Routed::NoDestination { .. } => (Outcome::Matched, "no usable destination".to_owned()),
        Routed::Preflight { .. } => (Outcome::Matched, "answers the CORS preflight".to_owned()),
        Routed::Respond { status, .. } => (Outcome::Matched, format!("answers {status}")),
        Routed::Redirect { location, .. } => (Outcome::Matched, format!("redirects to {location}")),
        Routed::Forward(to) => (Outcome::Matched, format!("{} to {}", to.route, to.host)),
    };
    Step { subject: "route".to_owned(), outcome, detail, redacted: None, place: None, depth: 0 }
}
