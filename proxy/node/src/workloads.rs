//! The workloads' certificates and the listeners that speak mTLS with them: set up, and told of.

use std::{sync::Arc, time::Duration};

use dataplane::{
    Capture,
    accept::Bound,
    secure::{Certificates, Speaking, Whose, WorkloadTls, WorkloadTlsStatus},
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
    held: Option<Held>,
    /// Those that speak mTLS, with the listener's name.
    listeners: Arc<Vec<(String, Arc<WorkloadTls>)>>,
    /// Those that call only, at whose listeners no mTLS is spoken.
    callers: Arc<Vec<Arc<WorkloadTls>>>,
}

#[derive(Clone)]
struct Held {
    supply: Arc<Supply>,
    certificates: Arc<Certificates>,
}

/// For so long a workload's first certificate is waited for before the others are ready without it.
const FIRST_CERTIFICATE: Duration = Duration::from_secs(30);

/// What a listener stands for, and how mTLS is spoken at it.
pub(crate) type Role = Option<(Whose, Option<Speaking>)>;

impl Workloads {
    /// Starts the supply of certificates, where the settings have one.
    ///
    /// # Errors
    /// [`StartError::Certificates`]
    pub(crate) fn supply(
        settings: &Settings,
        stop: &CancellationToken,
    ) -> Result<Option<Arc<Supply>>, StartError> {
        let Some(certificates) = &settings.identity.certificates else { return Ok(None) };
        let mesh = (settings.mesh.trust_domain.as_str(), settings.mesh.trust_domain_aliases.as_slice());
        Ok(Some(Supply::start(certificates.clone(), mesh, Clock::System, stop.clone())?))
    }

    /// What the listeners are for, in the settings' order.
    pub(crate) fn roles(listeners: &[ListenerSettings]) -> Vec<Role> {
        let role = |settings: &ListenerSettings| {
            let whose = match settings.role().ok()? {
                ListenerRole::Workload(workload, _) => Whose::Workload(workload),
                ListenerRole::Gateway(key) => Whose::Gateway(key),
            };
            let hbone = settings.is_hbone().then_some(Speaking::Hbone);
            Some((whose, settings.is_mesh().then_some(Speaking::Sidecar).or(hbone)))
        };
        listeners.iter().map(role).collect()
    }

    /// Hands each listener the mTLS of the workload that it stands for.
    pub(crate) fn attach(
        supply: Option<Arc<Supply>>,
        roles: Vec<Role>,
        bound: Vec<Bound>,
        (snapshots, stop): (&watch::Receiver<Option<Arc<Snapshot>>>, &CancellationToken),
    ) -> (Vec<Bound>, Self) {
        let Some(supply) = supply else { return (bound, Self::default()) };
        let certificates = Certificates::new(Arc::clone(&supply), snapshots.clone(), stop.clone());
        let (mut listeners, mut callers) = (Vec::new(), Vec::new());
        let mut attach = |(bound, role): (Bound, Role)| {
            let Some((whose, speaking)) = role else { return bound };
            let own = certificates.of(whose);
            match speaking {
                Some(_) => listeners.push((bound.name().to_owned(), Arc::clone(&own))),
                None => callers.push(Arc::clone(&own)),
            }
            bound.with_mesh(own, speaking)
        };
        // Bound in the settings' order, one for each.
        let bound = bound.into_iter().zip(roles).map(&mut attach).collect();
        let held = Some(Held { supply, certificates });
        (bound, Self { held, listeners: Arc::new(listeners), callers: Arc::new(callers) })
    }

    /// Captured pods speak mTLS as their workloads.
    pub(crate) fn hand_to(&self, capture: Capture) -> Capture {
        let certificates = self.held.as_ref().map(|held| Arc::clone(&held.certificates));
        Capture { certificates, ..capture }
    }

    /// Whether every workload that speaks mTLS at a listener has had a certificate, and every captured pod's:
    /// but a pod that gets none takes nobody else out of service for ever, as long as others do. Nor does one
    /// that has expired.
    pub(crate) fn are_ready(&self) -> bool {
        let Some(held) = &self.held else { return true };
        let mut status = held.certificates.status();
        let calls_only: Vec<_> = self.callers.iter().map(|tls| tls.status().whose).collect();
        status.retain(|one| !calls_only.contains(&one.whose));
        let supplied = status.is_empty() || status.iter().any(|one| one.waits.is_none());
        let soon = status.iter().any(|one| one.waits.is_some_and(|since| since < FIRST_CERTIFICATE));
        supplied && !soon && self.listeners.iter().all(|(_, listener)| listener.status().waits.is_none())
    }

    /// Certificates, bundles, workloads and listeners, for `/readyz`; `null` without certificates.
    pub(crate) fn json(&self) -> Value {
        let Some(Held { supply, certificates }) = &self.held else { return Value::Null };
        let trust = supply.trust_status();
        let domain = |(name, roots, seconds): &(String, usize, i64)| json!({"trustDomain": name, "roots": roots, "expiresInSeconds": seconds});
        let workload = |status: &WorkloadTlsStatus| {
            let identity = status.identity.as_ref().map(ToString::to_string);
            json!({"workload": status.whose, "identity": identity, "waits": status.waits.is_some()})
        };
        let listener = |(name, listener): &(String, Arc<WorkloadTls>)| {
            let WorkloadTlsStatus { whose, identity, .. } = listener.status();
            let identity = identity.map(|identity| identity.to_string());
            json!({"listener": name, "workload": whose, "identity": identity})
        };
        json!({
            "certificates": supply.status(),
            "trust": {
                "version": trust.version,
                "domains": trust.domains.iter().map(domain).collect::<Vec<_>>(),
                "problem": trust.problem,
            },
            "workloads": certificates.status().iter().map(workload).collect::<Vec<_>>(),
            "listeners": self.listeners.iter().map(listener).collect::<Vec<_>>(),
        })
    }

    /// Expiry, renewals and handshakes, for `/metrics`.
    pub(crate) fn metrics(&self, page: &mut Exposition) {
        let Some(Held { supply, certificates }) = &self.held else { return };
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
        handshakes(&certificates.status(), page);
    }
}

/// Of each workload, by outcome.
fn handshakes(status: &[WorkloadTlsStatus], page: &mut Exposition) {
    type Counts = fn(&WorkloadTlsStatus) -> &Vec<(&'static str, u64)>;
    let mut counter = |name, help, label: &'static str, counts: Counts| {
        let samples = status.iter().flat_map(|one| {
            counts(one).iter().map(move |(value, n)| {
                (vec![("workload", one.whose.clone()), (label, (*value).to_owned())], count(*n))
            })
        });
        page.counter(name, help, samples);
    };
    counter(
        "fhirward_mtls_handshakes_total",
        "Handshakes in which a workload was called: full, resumed, or why one failed.",
        "outcome",
        |one| &one.handshakes,
    );
    counter(
        "fhirward_mtls_calls_total",
        "Handshakes in which a workload called another: full, or why one failed.",
        "outcome",
        |one| &one.calls,
    );
    counter(
        "fhirward_mtls_connections_ended_total",
        "Connections ended because their peer was verified no longer.",
        "reason",
        |one| &one.ended,
    );
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
