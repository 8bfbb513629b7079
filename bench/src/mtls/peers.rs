//! Both peers' settings, and their processes.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::oracle::translate::{EnvoyListener, Manifests, envoy_config};
use tests::real::envoy_config::{self, Files, Name};

use super::kit::{ALPN, HBONE_ALPN, Kit, Workload, principal};
use super::{Way, hbone};
use crate::meshes::NAMESPACE;
use crate::peers::process::{Process, free_address};
use crate::peers::{Peer, StartError, World};

/// How many addresses of one network are used.
const PER_NETWORK: usize = 250;

/// What Istio's sidecars choose from at their ports.
const SIDECARS_ALPN: &[&str] = &["istio-peer-exchange", "h2", "http/1.1", ALPN];

/// A peer's process, and where each workload listens.
pub struct Up {
    /// The process.
    pub process: Process,
    /// In the order of the workloads.
    pub targets: Vec<SocketAddr>,
    _folder: TempDir,
}

/// Starts a peer for these workloads.
///
/// # Errors
/// [`StartError`].
pub fn start(
    world: &World,
    peer: Peer,
    kit: &Kit,
    workloads: &[Workload],
    way: Way,
) -> Result<Up, StartError> {
    let folder = tempfile::Builder::new().prefix(peer.name()).tempdir_in(&world.runs)?;
    let at = folder.path();
    let (port, admin) = (free_address()?.port(), free_address()?);
    let targets: Vec<SocketAddr> = (0..workloads.len()).map(|index| (address(index), port).into()).collect();
    let (program, arguments): (_, &[&str]) = if peer == Peer::Envoy {
        let config = envoy(kit, workloads, &targets, [admin, world.upstream], way)?;
        fs::write(at.join("envoy.json"), config)?;
        let program = world.programs.envoy.clone().ok_or(StartError::Missing("envoy"))?;
        (program, &["-c", "envoy.json", "--concurrency", "1", "--disable-hot-restart", "-l", "error"])
    } else {
        fs::create_dir(at.join("manifests"))?;
        fs::write(at.join("manifests/mesh.yaml"), manifests(way))?;
        fs::write(at.join("fhirward.yaml"), ours(kit, workloads, &targets, [admin, world.upstream], way))?;
        (world.ours("fhirward")?, &["run", "--config", "fhirward.yaml"])
    };
    let arguments: Vec<_> = arguments.iter().map(Into::into).collect();
    let process = Process::start(&program, &arguments, &[], at, world.core)?;
    Ok(Up { process, targets, _folder: folder })
}

/// One of loopback's own addresses for each workload: ports are scarce.
fn address(index: usize) -> Ipv4Addr {
    let part = |number: usize| u8::try_from(number).unwrap_or(u8::MAX);
    Ipv4Addr::new(127, 1, part(index / PER_NETWORK), part(index % PER_NETWORK + 1))
}

/// STRICT, and the client may read and write; of bytes there is nothing to say but who sends them. Without
/// mTLS there are no principals.
fn manifests(way: Way) -> String {
    let (mut before, mut from) = (String::new(), String::new());
    let mut to = "to: [{operation: {methods: [GET, POST], paths: [\"/fhir/*\"]}}]";
    if way != Way::Plain {
        let kind = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication";
        before = format!(
            "{kind}\nmetadata: {{name: default, namespace: {NAMESPACE}}}\nspec: {{mtls: {{mode: STRICT}}}}\n---\n"
        );
        from = format!("from: [{{source: {{principals: [\"{}\"]}}}}]\n    ", principal("client"));
    }
    if way == Way::Raw {
        // A port that is declared to be no HTTP.
        let spec = "{selector: {app: bench}, ports: [{port: 8080, name: tcp-bytes}]}";
        let kind = "apiVersion: v1\nkind: Service";
        let service =
            format!("{kind}\nmetadata: {{name: bytes, namespace: {NAMESPACE}}}\nspec: {spec}\n---\n");
        before += &service;
        to = "";
    }
    format!(
        "{before}apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: client, namespace: {NAMESPACE}}}
spec:
  action: ALLOW
  rules:
  - {from}{to}
"
    )
}

/// Ours: a listener for each workload, one worker thread, no access log.
fn ours(
    kit: &Kit,
    workloads: &[Workload],
    targets: &[SocketAddr],
    [admin, upstream]: [SocketAddr; 2],
    way: Way,
) -> String {
    let tls = match way {
        Way::Plain => "",
        Way::Sidecar => ", tls: {mesh: true}",
        Way::Hbone | Way::Raw => ", tls: {hbone: true}",
    };
    let mut text = String::from("listeners:\n");
    // Writing to a String cannot fail.
    for (Workload { name, .. }, target) in workloads.iter().zip(targets) {
        let _ = writeln!(
            text,
            "- {{name: {name}, address: \"{target}\", to: {NAMESPACE}/{name}, port: 8080, upstream: \"{upstream}\"{tls}}}"
        );
    }
    text += "mesh:\n  manifests: [manifests]\n  workloads:\n";
    for Workload { name, .. } in workloads {
        let _ = writeln!(
            text,
            "  - {{name: {NAMESPACE}/{name}, labels: {{app: bench}}, serviceAccount: {name}}}"
        );
    }
    if way != Way::Plain {
        text += "identity:\n  certificates:\n    files:\n";
        for Workload { name, folder, .. } in workloads {
            let folder = folder.display();
            let _ = writeln!(text, "    - {{serviceAccount: {NAMESPACE}/{name}, folder: \"{folder}\"}}");
        }
        let roots = kit.roots();
        let _ = writeln!(text, "    trust: [{{domain: cluster.local, bundles: [\"{}\"]}}]", roots.display());
    }
    let _ = write!(
        text,
        "observe: {{accessLog: {{enabled: false}}}}\nadmin: {{address: \"{admin}\", threads: 1}}\n"
    );
    text
}

/// Envoy: the oracle's translation of the same manifests, with each workload's TLS as Istio sets it up.
fn envoy(
    kit: &Kit,
    workloads: &[Workload],
    targets: &[SocketAddr],
    [admin, upstream]: [SocketAddr; 2],
    way: Way,
) -> Result<String, StartError> {
    let listener = |(workload, target): (&Workload, &SocketAddr)| {
        EnvoyListener::new(&workload.name, NAMESPACE, *target, upstream)
    };
    let listeners: Vec<EnvoyListener> = workloads.iter().zip(targets).map(listener).collect();
    if let (Way::Raw, Some(target)) = (way, targets.first()) {
        let tls = workloads.first().map(|workload| tls(workload, &kit.roots(), &[HBONE_ALPN]));
        return Ok(hbone::raw([*target, upstream, admin], tls).to_string());
    }
    let mut config: Value =
        serde_json::from_str(&envoy_config(&Manifests::parse(&manifests(way))?, &listeners, admin)?)?;
    if way == Way::Plain {
        return Ok(config.to_string());
    }
    let roots = kit.roots();
    if let (Way::Hbone, Some(target)) = (way, targets.first()) {
        let tls = workloads.first().map(|workload| tls(workload, &roots, &[HBONE_ALPN]));
        hbone::behind_tunnels(&mut config, *target, tls);
        return Ok(config.to_string());
    }
    let listeners = config["static_resources"]["listeners"].as_array_mut();
    for (listener, workload) in listeners.into_iter().flatten().zip(workloads) {
        let chain = &mut listener["filter_chains"][0];
        chain["transport_socket"] = tls(workload, &roots, SIDECARS_ALPN);
        // Ours takes none from outside either.
        chain["filters"][0]["typed_config"]["forward_client_cert_details"] = json!("SANITIZE_SET");
    }
    Ok(config.to_string())
}

fn tls(workload: &Workload, roots: &Path, alpn: &[&str]) -> Value {
    let files = Files {
        certificate: &workload.files.certificate,
        key: &workload.files.key,
        trusted: roots,
        revoked: None,
    };
    envoy_config::server_tls(&files, alpn, Name::Prefix("spiffe://cluster.local/"))
}
