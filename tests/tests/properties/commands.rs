//! `fhirward test`, `fhirward explain` and the running proxy say the same, and what the second
//! evaluator says.

use std::{collections::BTreeMap, net::SocketAddr, path::Path, process::Command, time::Duration};

use serde_json::{Value, json};
use tests::harness::{Proxy, binary};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{
    scene::{Outcome, Request, Scene},
    token::Signer,
};

/// Scenes of the commands, and requests in each.
const SCENES: u64 = 30;
const REQUESTS: usize = 40;
/// Scenes of the running proxy, and requests to each.
const LIVE_SCENES: u64 = 4;
const LIVE_REQUESTS: usize = 120;
/// No answer takes longer.
const LONGEST: Duration = Duration::from_secs(30);

fn fhirward(arguments: &[&str]) -> String {
    let output = Command::new(binary().unwrap()).args(arguments).output().unwrap();
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_ne!(output.status.code(), Some(2), "{arguments:?}: {out}{error}");
    out.into_owned()
}

/// What `fhirward test` says of each case of a file: outcome, verdict and rule.
fn tested(file: &Path) -> Vec<(Outcome, Value)> {
    let report: Value =
        serde_json::from_str(&fhirward(&["test", "--output", "json", &file.display().to_string()])).unwrap();
    let outcome = |case: &Value| match case["status"].as_u64() {
        None => Outcome::Dropped,
        Some(status) => {
            let body = case["body"].as_str().map(str::to_owned).filter(|_| status != 200);
            Outcome::Status(u16::try_from(status).unwrap(), body)
        }
    };
    let cases = report["tests"][0]["cases"].as_array().unwrap();
    cases.iter().map(|case| (outcome(case), case.clone())).collect()
}

/// The line in which `fhirward explain` says what came of each case.
fn explained(file: &Path) -> BTreeMap<String, String> {
    let text = fhirward(&["explain", &file.display().to_string()]);
    let heads = text.lines().filter(|line| line.starts_with("case-"));
    heads.map(|line| line.split_once(": ").unwrap()).map(|(name, rest)| (name.into(), rest.into())).collect()
}

/// What `explain` must say where `test` says this.
fn head(case: &Value) -> String {
    let verdict = match case["verdict"].as_str() {
        Some("allow") => "allowed",
        Some("deny") => "denied",
        _ => "dropped without an answer",
    };
    let status = case["status"].as_u64().map_or_else(String::new, |status| format!(", status {status}"));
    let rule = case["rule"].as_str().map_or_else(String::new, |rule| format!(", by {rule}"));
    format!("{verdict}{status}{rule}")
}

/// Two outcomes are one; a body that either does not tell is not compared.
fn agree(a: &Outcome, b: &Outcome) -> bool {
    match (a, b) {
        (Outcome::Status(a, Some(x)), Outcome::Status(b, Some(y))) => a == b && x == y,
        (Outcome::Status(a, _), Outcome::Status(b, _)) => a == b,
        (a, b) => a == b,
    }
}

/// Holds both commands to the second evaluator; gives what `test` says.
fn commands_agree(scene: &Scene, folder: &Path) -> Vec<Outcome> {
    let file = folder.join("scene.yaml");
    std::fs::write(&file, scene.policy_test()).unwrap();
    let (tested, explained) = (tested(&file), explained(&file));
    assert_eq!((tested.len(), explained.len()), (scene.requests.len(), scene.requests.len()));
    let mut outcomes = Vec::new();
    for (request, (outcome, case)) in scene.requests.iter().zip(tested) {
        let wanted = scene.wanted(request);
        let about =
            || format!("{request:#?}\n{case:#}\naliases {:?}\n{}", scene.world.aliases, scene.manifests);
        assert!(agree(&wanted, &outcome), "wanted {wanted:?}, test says {outcome:?}\n{}", about());
        assert_eq!(explained[case["name"].as_str().unwrap()], head(&case), "explain and test\n{}", about());
        outcomes.push(outcome);
    }
    outcomes
}

#[test]
fn test_and_explain_agree_with_the_second_evaluator() {
    let (signer, folder) = (Signer::new(), tempfile::tempdir().unwrap());
    let mut seen = BTreeMap::new();
    for number in 0..SCENES {
        for outcome in commands_agree(&Scene::new(number, REQUESTS, false, &signer), folder.path()) {
            *seen.entry(format!("{outcome:?}")).or_insert(0) += 1;
        }
    }
    println!("{seen:#?}");
    for kind in ["Dropped", "Status(200", "Status(401", "Audiences", "RBAC"] {
        assert!(seen.iter().any(|(name, count)| name.contains(kind) && *count >= 10), "{kind}: {seen:#?}");
    }
}

/// An upstream that answers everything with 200, one request a connection.
async fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut head, mut buffer) = (Vec::new(), [0; 4096]);
                while !head.windows(4).any(|window| window == b"\r\n\r\n") {
                    match socket.read(&mut buffer).await {
                        Ok(read @ 1..) => head.extend_from_slice(&buffer[..read]),
                        _ => return,
                    }
                }
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                let _ = socket.write_all(answer).await;
            });
        }
    });
    address
}

async fn ask(address: SocketAddr, request: &Request) -> Outcome {
    let mut text = format!("{} {} HTTP/1.1\r\nconnection: close\r\n", request.http.method, request.http.path);
    for (name, value) in request.headers() {
        text += &format!("{name}: {value}\r\n");
    }
    if let Some(token) = &request.token {
        text += &format!("authorization: Bearer {token}\r\n");
    }
    if request.http.method != "GET" {
        text += "content-length: 0\r\n";
    }
    text += "\r\n";
    let mut answer = Vec::new();
    let exchange = async {
        let mut socket = TcpStream::connect(address).await.unwrap();
        // A dropped connection may be reset before or after the request is written.
        let _ = socket.write_all(text.as_bytes()).await;
        let _ = socket.read_to_end(&mut answer).await;
    };
    tokio::time::timeout(LONGEST, exchange).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { return Outcome::Dropped };
    let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
    Outcome::Status(status, (status != 200).then(|| body.to_owned()))
}

/// A proxy with a listener for each port of each member.
async fn proxy(scene: &Scene) -> Proxy {
    let upstream = upstream().await.to_string();
    let mut listeners = Vec::new();
    for member in &scene.world.members {
        for port in tests::naive::strategies::PORTS {
            let name = listener(scene, member, port);
            listeners.push(json!({
                "name": name, "address": format!("{{{name}}}"), "upstream": upstream,
                "to": format!("{}/{}", member.namespace, member.name), "port": port,
            }));
        }
    }
    let names: Vec<&str> = listeners.iter().map(|one| one["name"].as_str().unwrap()).collect();
    let settings = format!(
        "listeners: {}\nmesh: {}\n",
        json!(listeners),
        json!({
            "manifests": ["manifests"], "workloads": scene.workloads(),
            "trustDomain": scene.world.trust_domain, "trustDomainAliases": scene.world.aliases,
        })
    );
    Proxy::start(&names, &settings, &[("manifests/world.yaml", &scene.manifests)]).await.unwrap()
}

fn listener(_: &Scene, member: &tests::naive::Member, port: u16) -> String {
    format!("{}-{}-{port}", member.namespace, member.name)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_running_proxy_agrees_with_test_explain_and_the_second_evaluator() {
    let (signer, folder) = (Signer::new(), tempfile::tempdir().unwrap());
    for number in 0..LIVE_SCENES {
        let scene = Scene::new(1_000 + number, LIVE_REQUESTS, true, &signer);
        let tested = commands_agree(&scene, folder.path());
        let proxy = proxy(&scene).await;
        for (request, tested) in scene.requests.iter().zip(tested) {
            let member = &scene.world.members[request.member];
            let live = ask(proxy.address(&listener(&scene, member, request.port)), request).await;
            // Here every body counts: both are the live code's own.
            assert_eq!(live, tested, "{request:#?}\n{}\n{}", scene.manifests, proxy.log());
        }
    }
}
