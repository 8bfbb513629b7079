//! The workloads' certificates and the listeners that speak mTLS with them: set up, and told of.

use std::sync::Arc;

use dataplane::{
    accept::Bound,
    secure::{MeshTls, MeshTlsStatus},
};
use identity::{Clock, spiffe::Supply};
use mesh::Snapshot;
use observe::Exposition;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    Settings,
    run::StartError,
    settings::{ListenerRole, ListenerSettings},
};

/// mTLS in the mesh; nothing, where the settings have no certificates.
#[derive(Clone, Default)]
pub(crate) struct Workloads {
    supply: Option<Arc<Supply>>,
    /// With the listener's name.
    listeners: Arc<Vec<(String, Arc<MeshTls>)>>,
}

impl Workloads {
    /// Starts the supply of certificates, and has the listeners speak mTLS that are to.
    ///
    /// # Errors
    /// [`StartError::Certificates`]
    pub(crate) fn attach(
        settings: &Settings,
        bound: Vec<Bound>,
        stop: &CancellationToken,
    ) -> Result<(Vec<Bound>, Self), StartError> {
        let Some(certificates) = &settings.identity.certificates else {
            return Ok((bound, Self::default()));
        };
        let mesh = (settings.mesh.trust_domain.as_str(), settings.mesh.trust_domain_aliases.as_slice());
        let supply = Supply::start(certificates.clone(), mesh, Clock::System, stop.clone())?;
        let mut listeners = Vec::new();
        let mut attach = |(bound, settings): (Bound, &ListenerSettings)| match settings.role() {
            Ok(ListenerRole::Workload(workload, port)) if settings.is_mesh() => {
                let mesh = Arc::new(MeshTls::new(workload, port, &supply));
                listeners.push((settings.name.clone(), Arc::clone(&mesh)));
                bound.with_mesh(mesh)
            }
            _ => bound,
        };
        // Bound in the settings' order, one for each.
        let bound = bound.into_iter().zip(&settings.listeners).map(&mut attach).collect();
        Ok((bound, Self { supply: Some(supply), listeners: Arc::new(listeners) }))
    }

    /// From here on the listeners follow the mesh.
    pub(crate) fn start(&self, snapshots: &watch::Receiver<Option<Arc<Snapshot>>>, stop: &CancellationToken) {
        let Some(supply) = &self.supply else { return };
        for (_, listener) in self.listeners.iter() {
            listener.start(Arc::clone(supply), snapshots.clone(), stop.clone());
        }
    }

    /// Whether every workload that speaks mTLS has had a certificate. One that has expired is told, and
    /// takes nobody else out of service.
    pub(crate) fn are_ready(&self) -> bool {
        self.listeners.iter().all(|(_, listener)| !listener.status().waits)
    }

    /// Certificates, bundles and listeners, for `/readyz`; `null` without certificates.
    pub(crate) fn json(&self) -> Value {
        let Some(supply) = &self.supply else { return Value::Null };
        let trust = supply.trust_status();
        let domain = |(name, roots, seconds): &(String, usize, i64)| json!({"trustDomain": name, "roots": roots, "expiresInSeconds": seconds});
        let listener = |(name, listener): &(String, Arc<MeshTls>)| {
            let MeshTlsStatus { workload, identity, .. } = listener.status();
            let identity = identity.map(|identity| identity.to_string());
            json!({"listener": name, "workload": workload.to_string(), "identity": identity})
        };
        json!({
            "certificates": supply.status(),
            "trust": {
                "version": trust.version,
                "domains": trust.domains.iter().map(domain).collect::<Vec<_>>(),
                "problem": trust.problem,
            },
            "listeners": self.listeners.iter().map(listener).collect::<Vec<_>>(),
        })
    }

    /// Expiry, renewals and handshakes, for `/metrics`.
    pub(crate) fn metrics(&self, page: &mut Exposition) {
        let Some(supply) = &self.supply else { return };
        let status = supply.status();
        let identity = |identity: &str| vec![("identity", identity.to_owned())];
        let expiring = status.iter().filter_map(|one| Some((&one.identity, one.expires_in_seconds?)));
        page.gauge(
            "fhirward_workload_certificate_expiry_seconds",
            "Until the end of a workload's certificate; negative: it has expired.",
            expiring.map(|(id, seconds)| (identity(id), signed(seconds))),
        );
        page.counter(
            "fhirward_workload_certificate_renewals_total",
            "Certificates of a workload taken into service.",
            status.iter().map(|one| (identity(&one.identity), count(one.renewals))),
        );
        page.counter(
            "fhirward_workload_certificate_failures_total",
            "Attempts to get a certificate for a workload that failed.",
            status.iter().map(|one| (identity(&one.identity), count(one.failures))),
        );
        let trust = supply.trust_status();
        page.gauge(
            "fhirward_trust_expiry_seconds",
            "Until the last root of a trust domain expires.",
            trust
                .domains
                .iter()
                .map(|(name, _, seconds)| (vec![("trust_domain", name.clone())], signed(*seconds))),
        );
        page.gauge(
            "fhirward_trust_problem",
            "1 while roots or revocation lists cannot be used as they are; the old ones hold.",
            [(Vec::new(), f64::from(u8::from(trust.problem.is_some())))],
        );
        let status: Vec<_> = self.listeners.iter().map(|(name, one)| (name, one.status())).collect();
        let by = |listener: &str, label: &'static str, value: &str| {
            vec![("listener", listener.to_owned()), (label, value.to_owned())]
        };
        let handshakes = status.iter().flat_map(|(name, status)| {
            status.handshakes.iter().map(|(outcome, n)| (by(name, "outcome", outcome), count(*n)))
        });
        page.counter(
            "fhirward_mtls_handshakes_total",
            "Handshakes with clients of the mesh: full, resumed, or why one failed.",
            handshakes,
        );
        let ended = status.iter().flat_map(|(name, status)| {
            status.ended.iter().map(|(reason, n)| (by(name, "reason", reason), count(*n)))
        });
        page.counter(
            "fhirward_mtls_connections_ended_total",
            "Connections ended because their client was verified no longer.",
            ended,
        );
    }
}

/// Samples are floating point by format.
#[allow(clippy::cast_precision_loss)]
fn count(value: u64) -> f64 {
    value as f64
}

/// As [`count`].
#[allow(clippy::cast_precision_loss)]
fn signed(value: i64) -> f64 {
    value as f64
}
