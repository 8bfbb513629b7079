//! A FHIR workload with policies of every kind, and an engine that writes down what it is asked.

use std::{
    net::SocketAddr,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use dataplane::{
    Engine, EngineSettings, Limits,
    accept::{Connection, ConnectionFacts, Entry},
    admit::AdmitError,
    authorize::Permitted,
    engine::Refused,
    record::Recorder,
    serve::Decide,
};
use http::{HeaderMap, Method, Uri, request::Parts};
use identity::{Authenticator, Clock, Health, OfflineIssuer};
use mesh::{MeshSettings, Snapshot, WorkloadSettings, settings::FhirSettings};
use observe::Record;
use policy::{SpiffeId, manifest};
use tokio::sync::watch;

use crate::{jwt, upstream};

/// Nothing below `/fhir/secret` ever passes, nothing from 192.0.2.0/24, and POST only with a Medic's token.
const MANIFESTS: &str = r#"
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: jwt, namespace: datamesh}
spec:
  selector: {matchLabels: {app: fhir-server}}
  jwtRules:
  - issuer: "https://idp.example/realms/r"
    jwksUri: "https://idp.example/certs"
    fromHeaders: [{name: authorization, prefix: "Bearer "}, {name: x-token}]
    fromParams: [access_token]
    fromCookies: [session]
    outputPayloadToHeader: x-payload
    outputClaimToHeaders: [{header: x-user, claim: sub}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: never, namespace: datamesh}
spec:
  action: DENY
  rules:
  - to: [{operation: {paths: ["/fhir/secret*"]}}]
  - from: [{source: {remoteIpBlocks: ["192.0.2.0/24"]}}]
  - when: [{key: "request.headers[x-blocked]", values: ["*"]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: read, namespace: datamesh}
spec:
  rules:
  - to: [{operation: {methods: ["GET", "HEAD", "OPTIONS", "PUT"], paths: ["/fhir*"]}}]
    when: [{key: "request.headers[x-purpose]", notValues: ["mail*"]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: write, namespace: datamesh}
spec:
  rules:
  - from: [{source: {requestPrincipals: ["*"]}}]
    to: [{operation: {methods: ["POST"]}}]
    when: [{key: "request.auth.claims[realm_access][roles]", values: ["Medic"]}]
"#;

pub(crate) const WORKLOAD: &str = "datamesh/fhir-server";
pub(crate) const PORT: u16 = 8080;

/// Of the whole process: keys, snapshot and engine are made once.
pub(crate) static ENGINE: LazyLock<Engine> = LazyLock::new(engine);

/// Short, so that a fuzzer can reach them.
pub(crate) fn limits() -> Arc<Limits> {
    static LIMITS: LazyLock<Arc<Limits>> = LazyLock::new(|| {
        Arc::new(Limits {
            head_bytes: 4 * 1024,
            header_count: 24,
            request_body_bytes: 2 * 1024,
            concurrent_streams: 16,
            ..Limits::default()
        })
    });
    Arc::clone(&LIMITS)
}

fn engine() -> Engine {
    let workload = WorkloadSettings {
        labels: [("app".to_owned(), "fhir-server".to_owned())].into(),
        ip: Some("10.0.0.1".parse().expect("an address")),
        enrolled: Some(true),
        upstream: [(PORT, upstream::address())].into(),
        fhir: Some(FhirSettings { base: "/fhir".to_owned() }),
        ..WorkloadSettings::named(WORKLOAD)
    };
    let settings = MeshSettings { workloads: vec![workload], ..MeshSettings::default() };
    let (objects, problems) = manifest::parse("world.yaml", MANIFESTS);
    assert!(problems.is_empty(), "{problems:?}");
    let (snapshot, _) = Snapshot::build(&objects, &settings, 1).expect("a snapshot");
    let issuer = OfflineIssuer {
        issuer: jwt::ISSUER.to_owned(),
        jwks_uri: None,
        jwks_json: jwt::WORLD.jwks.clone(),
        health: Health::Up,
    };
    let authenticator = Authenticator::offline(vec![issuer], Clock::Fixed(jwt::NOW));
    authenticator.follow(snapshot.jwt_rules());
    // The sender may go: the last value stays.
    let (_, receiver) = watch::channel(Some(Arc::new(snapshot)));
    Engine::new(receiver, authenticator, limits(), EngineSettings::default())
}

/// A connection to the workload; with mTLS where there is an identity.
pub(crate) fn facts(identity: bool) -> ConnectionFacts {
    let caller = SpiffeId {
        trust_domain: "cluster.local".to_owned(),
        namespace: "datamesh".to_owned(),
        service_account: "default".to_owned(),
    };
    ConnectionFacts {
        peer: SocketAddr::from(([198, 51, 100, 7], 40_000)),
        local: SocketAddr::from(([10, 0, 0, 100], 80)),
        identity: identity.then_some(caller),
        mutual_tls: identity,
        tls: identity,
        sni: None,
        entry: Entry::Workload { name: WORKLOAD.parse().expect("a name"), port: PORT },
    }
}

/// A head as the engine was asked about it.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    /// In which form it may pass; `None`: refused.
    pub(crate) passes: Option<(String, String)>,
}

/// The engine, with a memory of one connection.
#[derive(Default)]
pub(crate) struct Witness {
    pub(crate) asked: Mutex<Vec<Asked>>,
    pub(crate) told: Mutex<Vec<Record>>,
}

impl Decide for Witness {
    fn admit(&self, connection: &Connection) -> Result<(), AdmitError> {
        ENGINE.admit(connection).map(|_| ())
    }

    async fn decide(&self, connection: &Connection, head: Parts) -> Result<Permitted, Box<Refused>> {
        let (method, uri, headers) = (head.method.clone(), head.uri.clone(), head.headers.clone());
        let decided = ENGINE.decide(connection, head).await;
        let passes = decided.as_ref().ok().map(|permitted| {
            let forwarded = dataplane::fuzzing::forwarded(permitted);
            (forwarded.method, forwarded.path)
        });
        lock(&self.asked).push(Asked { method, uri, headers, passes });
        decided
    }
}

impl Recorder for Witness {
    fn record(&self, record: Record) {
        lock(&self.told).push(record);
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
