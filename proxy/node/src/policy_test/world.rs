//! The world of one PolicyTest: its mesh, its issuers, its clock, and the live engine over them.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use dataplane::{
    Engine, EngineSettings, Limits,
    accept::{Connection, ConnectionFacts, Entry},
    offline::{self, Exchange, OfflineOutcome, OfflineVerdict},
};
use http::HeaderMap;
use identity::{Authenticator, Clock, Health, OfflineIssuer};
use mesh::{MeshSettings, Snapshot, Workload, routing::GatewayKey};
use policy::{Object, Problem, Severity, WorkloadName, istio::KeySource};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{runtime::Runtime, sync::watch};

use super::{
    format::{Case, HttpVersion, Party, PolicyTest, Protocol, Verdict, Via},
    problem,
    report::{CaseReport, Forwarded},
    request,
    tokens::Signer,
};

/// A peer outside the cluster, where a case does not say who asks (TEST-NET-2, RFC 5737).
const OUTSIDER: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7));
/// Source port of every peer: no policy looks at it.
const PEER_PORT: u16 = 40_000;
/// Container port where neither the case nor the workload says.
const DEFAULT_PORT: u16 = 8080;
/// The gateway's port where the case does not say.
const GATEWAY_PORT: u16 = 80;

/// Everything the cases of one file are asked of.
pub struct World {
    engine: Engine,
    snapshot: Arc<Snapshot>,
    runtime: Runtime,
    signer: Signer,
    gateway: Gateway,
    now: i64,
    file: PathBuf,
}

/// What a case calls, and the workload behind it where no route has to find it.
type Called = (Entry, Option<Arc<Workload>>);

/// The labels of the ingress gateway, and a host that it serves.
#[derive(Default)]
struct Gateway {
    labels: BTreeMap<String, String>,
    host: Option<String>,
}

impl World {
    /// Builds the world: manifests read and checked, keys made, engine wired. `keys` are further
    /// JWKS by issuer, with which raw tokens verify.
    ///
    /// # Errors
    /// Everything in the file or its manifests that cannot be used.
    pub fn build(test: &PolicyTest, file: &Path, keys: &[(String, String)]) -> Result<Self, Vec<Problem>> {
        let failed = |field: &str, message: String| vec![problem(file, field, message)];
        let now: jiff::Timestamp = test
            .settings
            .now
            .parse()
            .map_err(|error: jiff::Error| failed("settings.now", error.to_string()))?;
        let now = now.as_second();
        let objects = objects(test, file)?;
        let settings = mesh_settings(test);
        let (snapshot, _warnings) = Snapshot::build(&objects, &settings, 1)?;
        let snapshot = Arc::new(snapshot);
        let signer = Signer::new().map_err(|_| failed("", "no key could be made".to_owned()))?;
        let issuers = issuers(test, &snapshot, &signer, keys).map_err(|message| {
            failed("", format!("the JWKS given for an issuer cannot be used: {message}"))
        })?;
        let authenticator = Authenticator::offline(issuers, Clock::Fixed(now));
        let (_, mesh) = watch::channel(Some(Arc::clone(&snapshot)));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(|error| failed("", error.to_string()))?;
        let engine = EngineSettings {
            strict_target: settings.strict_target,
            trusted_proxies: settings.num_trusted_proxies,
            keep_reasons: false,
        };
        Ok(Self {
            engine: Engine::new(mesh, authenticator, Arc::new(Limits::default()), engine),
            gateway: Gateway::of(&objects)?,
            snapshot,
            runtime,
            signer,
            now,
            file: file.to_owned(),
        })
    }

    /// Asks one case of the live engine.
    ///
    /// # Errors
    /// When the case names a workload that is not there, or does not say whom it asks.
    pub fn ask(&self, case: &Case) -> Result<CaseReport, Vec<Problem>> {
        let Some((entry, to)) = self.entry(case)? else { return Ok(leaves_the_mesh(case)) };
        let connection = self.connection(case, entry, to.as_deref())?;
        let outcome = match case.protocol {
            Protocol::Http => {
                let exchange = self.exchange(case, connection, to.as_deref())?;
                self.runtime.block_on(offline::run(&self.engine, exchange))
            }
            Protocol::Tcp | Protocol::Tls => offline::run_tcp(&self.engine, &connection),
            Protocol::Dns => return Ok(leaves_the_mesh(case)),
        };
        Ok(report(case, outcome))
    }

    /// What is called; `None` where the traffic leaves the mesh.
    fn entry(&self, case: &Case) -> Result<Option<Called>, Vec<Problem>> {
        if case.via == Some(Via::Gateway) {
            let labels = self.gateway.labels.clone();
            let port = case.port.unwrap_or(GATEWAY_PORT);
            return Ok(Some((Entry::Gateway(GatewayKey { labels, port }), None)));
        }
        let workload = match &case.to {
            None => return Err(self.wrong(case, "to", "whom the request is for is not said")),
            Some(Party::Fqdn(_)) => None,
            Some(Party::Ip(ip)) => self.snapshot.workload_at(*ip).map(Arc::clone),
            Some(Party::Workload(name)) => Some(self.workload(case, "to", name)?),
        };
        Ok(workload.map(|workload| {
            let port = case.port.unwrap_or_else(|| usual_port(&workload));
            (Entry::Workload { name: workload.name.clone(), port }, Some(workload))
        }))
    }

    fn connection(
        &self,
        case: &Case,
        entry: Entry,
        to: Option<&Workload>,
    ) -> Result<Connection, Vec<Problem>> {
        let from = match &case.from {
            Some(Party::Workload(name)) => Some(self.workload(case, "from", name)?),
            Some(Party::Ip(ip)) => self.snapshot.workload_at(*ip).map(Arc::clone),
            Some(Party::Fqdn(_)) => {
                return Err(self.wrong(case, "from", "a peer is a workload or an address"));
            }
            None => None,
        };
        let peer = match (&case.from, &from) {
            (Some(Party::Ip(ip)), _) => *ip,
            (_, Some(workload)) => workload.ip,
            _ => OUTSIDER,
        };
        let both = from.as_ref().is_some_and(|from| from.enrolled) && to.is_some_and(|to| to.enrolled);
        let mutual_tls = case.mtls.unwrap_or(both);
        let local = match (&entry, to) {
            (Entry::Workload { port, .. }, Some(workload)) => SocketAddr::new(workload.ip, *port),
            (Entry::Gateway(key), _) => SocketAddr::from((Ipv4Addr::LOCALHOST, key.port)),
            (Entry::Workload { port, .. }, None) => SocketAddr::from((Ipv4Addr::LOCALHOST, *port)),
        };
        Ok(Connection::new(ConnectionFacts {
            peer: SocketAddr::new(peer, PEER_PORT),
            local,
            identity: from.filter(|_| mutual_tls).map(|workload| workload.identity.clone()),
            mutual_tls,
            tls: mutual_tls || case.protocol == Protocol::Tls,
            sni: case.sni.clone(),
            entry,
        }))
    }

    fn exchange(
        &self,
        case: &Case,
        connection: Connection,
        to: Option<&Workload>,
    ) -> Result<Exchange, Vec<Problem>> {
        let issuer = self.first_issuer(to);
        let prepared = request::prepare(case, &self.signer, issuer.as_deref(), self.now, &self.file)
            .map_err(|problem| vec![problem])?;
        let default_host = match to {
            None => self.gateway.host.clone().or_else(|| Some("localhost".to_owned())),
            Some(workload) => Some(host_of(workload, case.port)),
        };
        let mut answer = http::Response::builder().status(case.response.status);
        for (name, value) in &case.response.headers.0 {
            answer = answer.header(name, value);
        }
        let answer = answer
            .body(Bytes::from(case.response.body.clone()))
            .map_err(|error| self.wrong(case, "response", &error.to_string()))?;
        Ok(Exchange {
            connection,
            method: case.request.method.clone(),
            target: prepared.target,
            version: match case.request.http {
                HttpVersion::Http11 => http::Version::HTTP_11,
                HttpVersion::Http2 => http::Version::HTTP_2,
            },
            headers: prepared.headers,
            default_host,
            body: Bytes::from(case.request.body.clone().unwrap_or_default()),
            answer,
        })
    }

    /// The issuer for tokens asked for without claims: the destination's first, else the mesh's.
    fn first_issuer(&self, to: Option<&Workload>) -> Option<String> {
        let own = to.and_then(|workload| workload.policy.jwt_rules().first());
        own.or_else(|| self.snapshot.jwt_rules().next()).map(|rule| rule.issuer.clone())
    }

    fn workload(&self, case: &Case, field: &str, name: &str) -> Result<Arc<Workload>, Vec<Problem>> {
        let parsed =
            name.parse::<WorkloadName>().map_err(|error| self.wrong(case, field, &error.to_string()))?;
        let known = self.snapshot.workload(&parsed).map(Arc::clone);
        known.ok_or_else(|| {
            self.wrong(case, field, &format!("`{name}` is neither in the manifests nor among the workloads"))
        })
    }

    fn wrong(&self, case: &Case, field: &str, message: &str) -> Vec<Problem> {
        vec![problem(&self.file, format!("cases[{}].{field}", case.name), message)]
    }
}

impl Gateway {
    /// Every selector of the Gateways together: the one ingress gateway of a test serves them all.
    fn of(objects: &[Object]) -> Result<Self, Vec<Problem>> {
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Spec {
            selector: BTreeMap<String, String>,
            servers: Vec<Server>,
        }
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Server {
            hosts: Vec<String>,
        }
        let mut gateway =
            Self { labels: BTreeMap::from([("istio".to_owned(), "ingressgateway".to_owned())]), host: None };
        let gateways = objects.iter().filter(|o| o.kind == "Gateway" && o.group() == "networking.istio.io");
        for object in gateways {
            let spec: Spec = object.field("spec").map_err(|problem| vec![problem])?.unwrap_or_default();
            gateway.labels.extend(spec.selector);
            let hosts = spec.servers.into_iter().flat_map(|server| server.hosts);
            let named = hosts.map(|host| host.rsplit('/').next().unwrap_or_default().to_owned());
            gateway.host = gateway.host.or_else(|| named.into_iter().find(|host| !host.contains('*')));
        }
        Ok(gateway)
    }
}

fn objects(test: &PolicyTest, file: &Path) -> Result<Vec<Object>, Vec<Problem>> {
    let folder = file.parent().unwrap_or(Path::new(""));
    let paths: Vec<PathBuf> = test.manifests.iter().map(|path| folder.join(path)).collect();
    let (mut objects, mut problems) = mesh::read_objects(&paths);
    if let Some(inline) = &test.inline {
        let name = format!("{} (inline)", file.display());
        let (more, found) = policy::manifest::parse(&name, inline);
        objects.extend(more);
        problems.extend(found);
    }
    problems.retain(|problem| problem.severity == Severity::Error);
    if problems.is_empty() { Ok(objects) } else { Err(problems) }
}

fn mesh_settings(test: &PolicyTest) -> MeshSettings {
    let settings = &test.settings;
    MeshSettings {
        trust_domain: settings.trust_domain.clone(),
        trust_domain_aliases: settings.trust_domain_aliases.clone(),
        root_namespace: settings.root_namespace.clone(),
        path_normalization: settings.path_normalization,
        num_trusted_proxies: settings.num_trusted_proxies,
        workloads: test.workloads.clone(),
        strict_target: settings.strict_target,
        ..MeshSettings::default()
    }
}

/// The run's key is every issuer's key, beside those that the caller brings.
fn issuers(
    test: &PolicyTest,
    snapshot: &Snapshot,
    signer: &Signer,
    brought: &[(String, String)],
) -> Result<Vec<OfflineIssuer>, String> {
    let of_rule = |rule: &Arc<policy::istio::JwtRule>| {
        let mut keys = vec![signer.jwk()];
        for (_, jwks) in brought.iter().filter(|(issuer, _)| *issuer == rule.issuer) {
            let document: Value = serde_json::from_str(jwks).map_err(|error| error.to_string())?;
            let list = document["keys"].as_array().ok_or("no list `keys`")?;
            keys.extend(list.iter().cloned());
        }
        Ok(OfflineIssuer {
            issuer: rule.issuer.clone(),
            jwks_uri: match &rule.keys {
                KeySource::Uri(uri) => Some(uri.clone()),
                KeySource::Inline(_) | KeySource::Discovery => None,
            },
            jwks_json: json!({"keys": keys}).to_string(),
            health: test.idp.get(&rule.issuer).copied().unwrap_or(Health::Up),
        })
    };
    snapshot.jwt_rules().map(of_rule).collect()
}

fn usual_port(workload: &Workload) -> u16 {
    let named = workload.ports.get("http").or_else(|| workload.ports.values().min());
    named.copied().unwrap_or(DEFAULT_PORT)
}

/// What a client inside the mesh would put into Host.
fn host_of(workload: &Workload, port: Option<u16>) -> String {
    let port = port.unwrap_or_else(|| usual_port(workload));
    match workload.services.first() {
        Some(service) => format!("{}.{}.svc.cluster.local:{port}", service.name, service.namespace),
        None => SocketAddr::new(workload.ip, port).to_string(),
    }
}

/// No policy family of this version looks at traffic that leaves the mesh.
fn leaves_the_mesh(case: &Case) -> CaseReport {
    let http = case.protocol == Protocol::Http;
    CaseReport {
        name: case.name.clone(),
        passed: true,
        verdict: Verdict::Allow,
        status: http.then_some(case.response.status),
        body: http.then(|| case.response.body.clone()),
        rule: None,
        reasons: vec!["the destination is not a workload of the mesh: no policy is about it".to_owned()],
        forwarded: None,
        mismatches: Vec::new(),
    }
}

fn report(case: &Case, outcome: OfflineOutcome) -> CaseReport {
    let forwarded = outcome.forwarded.map(|forwarded| Forwarded {
        method: forwarded.method,
        path: forwarded.path,
        headers: joined(&forwarded.headers),
        body: case.request.body.clone(),
    });
    CaseReport {
        name: case.name.clone(),
        passed: true,
        verdict: match outcome.verdict {
            OfflineVerdict::Allow => Verdict::Allow,
            OfflineVerdict::Deny => Verdict::Deny,
            OfflineVerdict::Drop => Verdict::Drop,
        },
        status: outcome.status.map(|status| status.as_u16()),
        body: outcome.status.map(|_| String::from_utf8_lossy(&outcome.body).into_owned()),
        rule: outcome.rule,
        reasons: outcome.reasons,
        forwarded,
        mismatches: Vec::new(),
    }
}

fn joined(headers: &HeaderMap) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for name in headers.keys() {
        let values = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        out.insert(name.as_str().to_owned(), values.collect::<Vec<_>>().join(", "));
    }
    out
}
