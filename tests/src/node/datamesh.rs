//! The data mesh of the tutorial over two nodes, its manifests unchanged.
//!
//! ```text
//!   node 0                                   node 1
//!   the ingress gateway's listener           datamesh/fhir-server   the demo's FHIR server, :8080
//!   datamesh/client     applications         datamesh/postgres-db   a real PostgreSQL, :5432
//!   datamesh/reporter   another of them
//!   outside/stranger    no label             outside/passer-by      no label
//!   outside/keycloak    the demo's provider
//! ```

use std::{fs, net::Ipv4Addr, path::PathBuf, process::Command};

use demo::pods::{Place, Pod};

use super::{Cluster, Error, Options, Program, Result, SOON, eventually, postgres::postgres};
use crate::harness::{ISSUER_BASE, binary, repository};

/// The address of `fhir-service`.
pub const FHIR_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 1, 10);
/// The address of the Service `postgres-db`.
pub const POSTGRES_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 1, 11);
/// Where the gateway listens on the first node.
pub const GATEWAY: u16 = 8000;
/// The FHIR server's port.
pub const FHIR: u16 = 8080;
const IDP: u16 = 8180;
const NAMESPACE: &str = "datamesh";
/// A pod each: node, name, and whether it is of the data mesh.
const PODS: [(usize, &str, bool); 7] = [
    (0, "client", true),
    (0, "reporter", true),
    (1, "fhir-server", true),
    (1, "postgres-db", true),
    (0, "stranger", false),
    (0, "keycloak", false),
    (1, "passer-by", false),
];

/// The running data mesh.
pub struct DataMesh {
    // Dropped in this order: the servers before what they stand in.
    /// The FHIR server, the identity provider.
    _servers: [Program; 2],
    /// PostgreSQL; it tells of each connection.
    pub postgres: Program,
    /// The nodes.
    pub cluster: Cluster,
    idp: String,
}

/// What `curl` saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Curl {
    /// Its exit code (curl(1)); 0 when an answer came.
    pub exit: i32,
    /// The answer's status; 0 where none came.
    pub status: u16,
    /// The answer's body, or curl's own words.
    pub body: String,
}

impl Curl {
    /// Whether the connection was reset before an answer: curl's code 56, or 55 where the reset came before
    /// its words had left.
    #[must_use]
    pub fn is_reset(&self) -> bool {
        self.status == 0 && [55, 56].contains(&self.exit)
    }
}

impl DataMesh {
    /// Opens it, with policies beside its own; ready when this returns.
    ///
    /// # Errors
    /// When a part does not start.
    pub fn open(policies: &str) -> Result<Self> {
        let mut cluster = Cluster::new(&Options { log: true, ..Options::default() }, "")?;
        for (node, name, meshed) in PODS {
            let actor = cluster.pod(node, name, meshed)?;
            actor.told = false;
            actor.namespace = if meshed { NAMESPACE.to_owned() } else { "outside".to_owned() };
        }
        let idp = format!("http://{}/realms/IDEA4RC", cluster.at("keycloak", 0, IDP));
        settle(&mut cluster, &idp)?;
        let demo = binary().map_err(|error| Error::Late(error.to_string()))?.with_file_name("fhirward-demo");
        let serve = |pod: &Pod, flag: &str, at: &str| {
            let mut command = pod.command(&demo);
            command.args([flag, at]);
            Program::start(flag, command)
        };
        let servers = [
            serve(&cluster.actor("fhir-server").pod, "--store-at", &format!("[::]:{FHIR}"))?,
            serve(&cluster.actor("keycloak").pod, "--idp-at", &cluster.at("keycloak", 0, IDP).to_string())?,
        ];
        let data = cluster.of("postgres-db").node.folder().join("postgres");
        let postgres = postgres(&cluster.actor("postgres-db").pod, &data)?;
        cluster.policies(policies)?;
        let mut mesh = Self { _servers: servers, postgres, cluster, idp };
        let answers = |pod: &str, url: &str| {
            eventually(url, SOON, || {
                let seen = mesh.curl(pod, &[url]).map_err(|error| error.to_string())?;
                if seen.status == 200 { Ok(()) } else { Err(format!("{seen:?}")) }
            })
        };
        answers("keycloak", &mesh.idp)?;
        answers("fhir-server", &format!("http://127.0.0.1:{FHIR}/metadata"))?;
        mesh.cluster.start()?;
        Ok(mesh)
    }

    /// `curl WORDS` in a pod.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn curl(&self, pod: &str, words: &[&str]) -> Result<Curl> {
        curl(self.cluster.actor(pod).pod.command("curl"), words)
    }

    /// `curl WORDS` as a process of a node, of no pod.
    ///
    /// # Errors
    /// When there is no such node, or it cannot be run.
    pub fn curl_on_node(&self, node: usize, words: &[&str]) -> Result<Curl> {
        let stage = self.cluster.nodes.get(node).ok_or_else(|| Error::Late(format!("no node {node}")))?;
        curl(stage.node.command(Place::Other, "curl"), words)
    }

    /// A person's access token, of the tutorial's realm.
    ///
    /// # Errors
    /// When the provider gives none.
    pub fn token(&self, person: &str) -> Result<String> {
        let (url, user) =
            (format!("{}/protocol/openid-connect/token", self.idp), format!("username={person}"));
        let password = format!("password={person}1234!");
        let form = ["client_id=idea", "grant_type=password", &user, &password];
        let words: Vec<&str> = form.iter().flat_map(|field| ["--data-urlencode", field]).collect();
        let seen = self.curl("keycloak", &[words.as_slice(), &[&url]].concat())?;
        let body: serde_json::Value = serde_json::from_str(&seen.body).unwrap_or_default();
        let token = body.get("access_token").and_then(serde_json::Value::as_str);
        token.map(str::to_owned).ok_or_else(|| Error::Late(format!("no token for {person}: {seen:?}")))
    }
}

/// The settings of both nodes, and the manifests.
fn settle(cluster: &mut Cluster, idp: &str) -> Result<()> {
    let workloads: Vec<String> = PODS
        .iter()
        .map(|(_, name, meshed)| {
            // The labels of the two servers are those of their Deployments.
            let deployed = ["fhir-server", "postgres-db"].contains(name);
            let labels = if deployed { String::new() } else { format!(", labels: {{app: {name}}}") };
            let namespace = if *meshed { NAMESPACE } else { "outside" };
            let ip = cluster.at(name, 0, 0).ip();
            format!("  - {{name: {namespace}/{name}, ip: \"{ip}\", serviceAccount: {name}{labels}}}\n")
        })
        .collect();
    let mesh = format!(
        "  serviceAddresses: {{datamesh/fhir-service: \"{FHIR_SERVICE}\", datamesh/postgres-db: \"{POSTGRES_SERVICE}\"}}\n  workloads:\n{}",
        workloads.concat()
    );
    let provider = format!(
        "  providers:\n  - {{issuer: \"{ISSUER_BASE}/realms/IDEA4RC\", jwksUri: \"{idp}/protocol/openid-connect/certs\"}}\n"
    );
    for stage in &mut cluster.nodes {
        stage.options().mesh.clone_from(&mesh);
        stage.options().identity += &provider;
    }
    let first = cluster.nodes.first_mut().ok_or_else(|| Error::Late("no node".to_owned()))?;
    first.options().more = format!(
        "listeners:\n- {{name: ingress, address: \"0.0.0.0:{GATEWAY}\", gateway: {{labels: {{istio: ingressgateway}}, port: 80}}}}\n"
    );
    let to: PathBuf = first.node.folder().join("manifests");
    for entry in fs::read_dir(repository().join("config/data-mesh"))? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|extension| extension == "yaml") {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

fn curl(mut command: Command, words: &[&str]) -> Result<Curl> {
    command
        .args(["-q", "-sS", "--noproxy", "*", "--globoff", "-m", "60", "-w", "\n%{http_code}"])
        .args(words);
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let (body, status) = text.rsplit_once('\n').unwrap_or_default();
    let (status, exit) = (status.parse().unwrap_or(0), output.status.code().unwrap_or(-1));
    let errors = String::from_utf8_lossy(&output.stderr);
    let body = if status == 0 { errors.trim() } else { body };
    Ok(Curl { exit, status, body: body.to_owned() })
}
