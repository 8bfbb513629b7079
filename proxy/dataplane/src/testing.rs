//! A small world for the tests of these rooms: manifests, keys, a clock that stands still.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{net::SocketAddr, sync::Arc};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Response, Version};
use identity::{Authenticator, Clock, Health, OfflineIssuer};
use mesh::{MeshSettings, Snapshot, WorkloadSettings, routing::GatewayKey, settings::FhirSettings};
use policy::{SpiffeId, manifest};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{
    Engine, EngineSettings, Limits,
    accept::{Connection, ConnectionFacts, Entry},
    offline::{Exchange, OfflineOutcome, run},
};

pub(crate) const NOW: i64 = 1_795_000_000;
pub(crate) const ISSUER: &str = "https://idp.example/realms/r";
pub(crate) const OUTSIDER: &str = "198.51.100.7";

/// A mesh with a namespace `datamesh`, a FHIR server and a caller `sleep`.
pub(crate) const BASE: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: datamesh, labels: {istio-injection: enabled}}
---
apiVersion: v1
kind: Service
metadata: {name: fhir-service, namespace: datamesh}
spec: {selector: {app: fhir-server}, ports: [{port: 80, targetPort: 8080}]}
"#;

/// Medics may POST, patients may GET (the tutorial's policies).
pub(crate) const ROLES: &str = r#"
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: jwt, namespace: datamesh}
spec:
  selector: {matchLabels: {app: fhir-server}}
  jwtRules: [{issuer: "https://idp.example/realms/r", jwksUri: "https://idp.example/certs"}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: medic, namespace: datamesh}
spec:
  selector: {matchLabels: {app: fhir-server}}
  rules:
  - from: [{source: {requestPrincipals: ["*"]}}]
    to: [{operation: {methods: ["POST"]}}]
    when: [{key: "request.auth.claims[realm_access][roles]", values: ["Medic"]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: patient, namespace: datamesh}
spec:
  selector: {matchLabels: {app: fhir-server}}
  rules:
  - from: [{source: {requestPrincipals: ["*"]}}]
    to: [{operation: {methods: ["GET"]}}]
    when: [{key: "request.auth.claims[realm_access][roles]", values: ["Patient"]}]
"#;

/// A gateway that serves `fhir.example` and rewrites `/api/` to `/`.
pub(crate) const GATEWAY: &str = r#"
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw, namespace: datamesh}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["fhir.example"]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: vs, namespace: datamesh}
spec:
  hosts: ["fhir.example"]
  gateways: [gw]
  http:
  - match: [{uri: {prefix: /moved}}]
    redirect: {uri: /elsewhere}
  - match: [{uri: {prefix: /nowhere}}]
    route: [{destination: {host: missing.datamesh.svc.cluster.local, port: {number: 80}}}]
  - match: [{uri: {prefix: /api/}}]
    rewrite: {uri: /}
    headers: {request: {set: {x-by: gateway}}, response: {remove: [server]}}
    route: [{destination: {host: fhir-service, port: {number: 80}}}]
"#;

pub(crate) struct World {
    pub(crate) engine: Arc<Engine>,
    pub(crate) mesh: watch::Sender<Option<Arc<Snapshot>>>,
    settings: MeshSettings,
    key: EcdsaKeyPair,
}

impl World {
    pub(crate) fn new(manifests: &[&str]) -> Self {
        Self::with(manifests, |_, _| {})
    }

    /// A world whose settings a test changes.
    pub(crate) fn with(
        manifests: &[&str],
        change: impl FnOnce(&mut MeshSettings, &mut EngineSettings),
    ) -> Self {
        let (mut settings, mut engine_settings) = (mesh_settings(), EngineSettings::default());
        change(&mut settings, &mut engine_settings);
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let issuer = OfflineIssuer {
            issuer: ISSUER.to_owned(),
            jwks_uri: None,
            jwks_json: jwks(&key).to_string(),
            health: Health::Up,
        };
        let authenticator = Authenticator::offline(vec![issuer], Clock::Fixed(NOW));
        let snapshot = Arc::new(build(manifests, &settings, 1));
        authenticator.follow(snapshot.jwt_rules());
        let (mesh, receiver) = watch::channel(Some(snapshot));
        let limits = Arc::new(Limits::default());
        let engine = Arc::new(Engine::new(receiver, authenticator, limits, engine_settings));
        Self { engine, mesh, settings, key }
    }

    /// Publishes other manifests.
    pub(crate) fn publish(&self, manifests: &[&str], version: u64) {
        self.mesh.send_replace(Some(Arc::new(build(manifests, &self.settings, version))));
    }

    /// Publishes other manifests under other settings.
    pub(crate) fn publish_with(
        &self,
        manifests: &[&str],
        version: u64,
        change: impl FnOnce(&mut MeshSettings),
    ) {
        let mut settings = self.settings.clone();
        change(&mut settings);
        self.mesh.send_replace(Some(Arc::new(build(manifests, &settings, version))));
    }

    /// A token of [`ISSUER`] with these claims beside `iss`, `sub` and `exp`.
    pub(crate) fn token(&self, claims: Value) -> String {
        let mut payload = json!({"iss": ISSUER, "sub": "alice", "exp": NOW + 300});
        for (name, value) in claims.as_object().unwrap() {
            payload[name] = value.clone();
        }
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(json!({"alg": "ES256", "kid": "k"})), part(payload));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }

    pub(crate) fn bearer(&self, role: &str) -> String {
        format!("Bearer {}", self.token(json!({"realm_access": {"roles": [role]}})))
    }

    pub(crate) async fn ask(&self, exchange: Exchange) -> OfflineOutcome {
        run(&self.engine, exchange).await
    }
}

fn mesh_settings() -> MeshSettings {
    let workload = |name: &str, ip: &str, app: &str| WorkloadSettings {
        name: name.to_owned(),
        labels: [("app".to_owned(), app.to_owned()), ("version".to_owned(), "v1".to_owned())].into(),
        service_account: None,
        ip: Some(ip.parse().unwrap()),
        ports: [("http".to_owned(), 8080)].into(),
        enrolled: None,
        upstream: [(8080, "127.0.0.1:18080".parse().unwrap())].into(),
        strict_target: None,
        fhir: (app == "fhir-server").then(|| FhirSettings { base: "/fhir".to_owned() }),
    };
    MeshSettings {
        workloads: vec![
            workload("datamesh/fhir-server", "10.0.0.1", "fhir-server"),
            workload("datamesh/sleep", "10.0.0.7", "sleep"),
        ],
        ..MeshSettings::default()
    }
}

fn build(manifests: &[&str], settings: &MeshSettings, version: u64) -> Snapshot {
    let mut objects = Vec::new();
    for (i, text) in manifests.iter().enumerate() {
        let (parsed, problems) = manifest::parse(&format!("{i}.yaml"), text);
        assert!(problems.is_empty(), "{problems:?}");
        objects.extend(parsed);
    }
    let (snapshot, _) = Snapshot::build(&objects, settings, version).unwrap();
    snapshot
}

fn jwks(key: &EcdsaKeyPair) -> Value {
    let point = key.public_key().as_ref();
    let part = |from: usize| URL_SAFE_NO_PAD.encode(&point[from..from + 32]);
    json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "k", "alg": "ES256", "x": part(1), "y": part(33)}]})
}

pub(crate) fn sleep() -> SpiffeId {
    SpiffeId {
        trust_domain: "cluster.local".to_owned(),
        namespace: "datamesh".to_owned(),
        service_account: "default".to_owned(),
    }
}

fn connect(ip: &str, identity: Option<SpiffeId>, entry: Entry) -> Connection {
    let peer: SocketAddr = (ip.parse::<std::net::IpAddr>().unwrap(), 40_000).into();
    let local = "10.0.0.100:80".parse().unwrap();
    let mutual_tls = identity.is_some();
    let facts = ConnectionFacts { peer, local, identity, mutual_tls, tls: mutual_tls, sni: None, entry };
    Connection::new(facts)
}

/// To the FHIR server's own port.
pub(crate) fn to_server(ip: &str, identity: Option<SpiffeId>) -> Connection {
    let name = "datamesh/fhir-server".parse().unwrap();
    connect(ip, identity, Entry::Workload { name, port: 8080 })
}

/// To the ingress gateway, from outside.
pub(crate) fn to_gateway() -> Connection {
    let labels = [("istio".to_owned(), "ingressgateway".to_owned())].into();
    connect(OUTSIDER, None, Entry::Gateway(GatewayKey { labels, port: 80 }))
}

pub(crate) fn exchange(
    connection: Connection,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
) -> Exchange {
    Exchange {
        connection,
        method: method.to_owned(),
        target: target.to_owned(),
        version: Version::HTTP_11,
        headers: headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
        default_host: Some("fhir.example".to_owned()),
        body: Bytes::new(),
        answer: Response::builder().status(200).header("server", "hapi").body(Bytes::from("ok")).unwrap(),
    }
}
