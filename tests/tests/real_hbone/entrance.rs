//! Envoy calls by HBONE, and our listener with `tls: {hbone: true}` takes it.

use demo::fhir_store;
use tests::{
    harness::{ByteServer, Manner, receive, repository, send},
    real::Envoy,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;

/// The workload's address and container port, as its callers know them.
const AUTHORITY: &str = "127.0.0.1:8080";

/// Ours before an application, and an Envoy that calls it; where to go in.
async fn pair(kit: &Kit, application: SocketAddr, manifests: &str) -> (Proxy, Envoy, SocketAddr) {
    let listeners = format!(
        "listeners:
- {{name: entrance, address: \"{{entrance}}\", to: datamesh/fhir-server, port: 8080, upstream: \"{application}\", tls: {{hbone: true}}}}
mesh:
  manifests: [manifests]
  workloads: [{{name: datamesh/fhir-server, labels: {{app: fhir-server}}, serviceAccount: fhir-server}}]"
    );
    let proxy = kit.proxy(&["entrance"], &listeners, "datamesh/fhir-server", manifests).await;
    let exit = loopback().await;
    let (listener, cluster) = client(kit, exit, proxy.address("entrance"), (CLIENT, SERVER), AUTHORITY);
    (proxy, Envoy::with(&[listener], &[cluster]).await.unwrap(), exit)
}

#[tokio::test(flavor = "multi_thread")]
async fn http_comes_through_envoys_tunnels() {
    let kit = Kit::new();
    let store = fhir_store::start(fhir_store::Settings::default()).await.unwrap();
    let (proxy, envoy, exit) = pair(&kit, store.addr(), "").await;
    let caller = reqwest::Client::builder().no_proxy().build().unwrap();
    for number in 0..50 {
        let request = caller.get(format!("http://{exit}/Patient?_count={number}"));
        let answer = request.header("x-forwarded-client-cert", "URI=spiffe://forged").send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 200, "{}{}", proxy.log(), envoy.log());
    }
    for seen in store.recorded() {
        let told = seen.headers.get("x-forwarded-client-cert").unwrap().to_str().unwrap();
        assert!(told.starts_with(&format!("By={SERVER};Hash=")), "{told}");
        assert!(told.contains(&format!("URI={CLIENT}")) && !told.contains("forged"), "{told}");
    }
    let principal = format!("source_principal=\"{CLIENT}\"");
    let labels = ["reporter=\"destination\"", "connection_security_policy=\"mutual_tls\"", &principal];
    assert_eq!(proxy.metric("istio_requests_total", &labels).await.unwrap(), 50.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn half_open_tunnels_bring_the_last_byte_both_ways() {
    let kit = Kit::new();
    // The application ends first. (What its client says after that, Envoy does not pass on.)
    let mut application = ByteServer::start(Manner::EndsFirst(MANY)).await.unwrap();
    let (_proxy, _envoy, exit) = pair(&kit, application.address(), "").await;
    let mut socket = soon(TcpStream::connect(exit)).await.unwrap();
    assert_eq!(soon(receive(&mut socket)).await.unwrap(), MANY);
    drop(socket);
    let _ = soon(application.ended()).await;
    // The client ends first.
    let mut application = ByteServer::start(Manner::EndsLast(MANY)).await.unwrap();
    let (_proxy, _envoy, exit) = pair(&kit, application.address(), "").await;
    let mut socket = soon(TcpStream::connect(exit)).await.unwrap();
    soon(send(&mut socket, MANY)).await.unwrap();
    assert_eq!(soon(receive(&mut socket)).await.unwrap(), MANY);
    assert_eq!(soon(application.ended()).await.unwrap(), MANY);
}

/// The listener of the README's chapter on HBONE.
fn readme() -> String {
    let text = fs::read_to_string(repository().join("README.md")).unwrap();
    let (_, chapter) = text.split_once("### HBONE\n").unwrap();
    let (_, block) = chapter.split_once("```yaml\n").unwrap();
    block.split_once("```").unwrap().0.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readmes_listener_takes_envoys_tunnels() {
    let kit = Kit::new();
    let store = fhir_store::start(fhir_store::Settings::default()).await.unwrap();
    let listener = readme();
    let put = listener.replace("address: 127.0.0.1:15008", "address: \"{tunnels}\"");
    let put = put.replace("upstream: 127.0.0.1:8080", &format!("upstream: \"{}\"", store.addr()));
    assert!(put.contains("{tunnels}") && put.contains(&store.addr().to_string()), "{listener}");
    let settings = format!(
        "listeners:\n{put}mesh: {{manifests: [manifests], workloads: [{{name: datamesh/fhir-server, serviceAccount: fhir-server}}]}}"
    );
    let proxy = kit.proxy(&["tunnels"], &settings, "datamesh/fhir-server", "").await;
    let exit = loopback().await;
    let (listener, cluster) = client(&kit, exit, proxy.address("tunnels"), (CLIENT, SERVER), AUTHORITY);
    let _envoy = Envoy::with(&[listener], &[cluster]).await.unwrap();
    let caller = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = caller.get(format!("http://{exit}/metadata")).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 200, "{}", proxy.log());
    let error = caller.get(format!("http://{}/metadata", proxy.address("tunnels"))).send().await;
    assert!(error.is_err(), "plaintext is reset, not answered: {error:?}");
    assert_eq!(store.requests(), 1);
}

const ONLY: &str = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: only, namespace: datamesh}
spec:
  selector: {matchLabels: {app: fhir-server}}
  rules: [{from: [{source: {principals: [cluster.local/ns/datamesh/sa/SOMEBODY]}}]}]
---
apiVersion: v1
kind: Service
metadata: {name: fhir-service, namespace: datamesh}
spec: {selector: {app: fhir-server}, ports: [{port: 8080, name: NAME}]}
";

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_peer_of_a_server_that_speaks_first_gets_not_one_byte() {
    // Whether the port is declared or found out, and as a control somebody who is permitted.
    for (somebody, name, permitted) in [
        ("other", "tcp-db", false),
        ("other", "db", false),
        ("gateway", "tcp-db", true),
        ("gateway", "db", true),
    ] {
        let kit = Kit::new();
        let application = ByteServer::start(Manner::Greets(b"ready\n")).await.unwrap();
        let manifests = ONLY.replace("SOMEBODY", somebody).replace("NAME", name);
        let (proxy, _envoy, exit) = pair(&kit, application.address(), &manifests).await;
        let mut socket = soon(TcpStream::connect(exit)).await.unwrap();
        let mut said = [0_u8; 6];
        let read = soon(socket.read(&mut said)).await;
        if permitted {
            assert_eq!(read.unwrap(), 6, "{name}: {}", proxy.log());
            socket.write_all(b"x").await.unwrap();
            assert_eq!(soon(socket.read_u8()).await.unwrap(), b'x');
        } else {
            assert!(read.map_or(true, |length| length == 0), "{name}: {said:?}");
        }
        assert_eq!(application.connections(), u64::from(permitted), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_with_a_bad_certificate_or_authority_is_refused() {
    let kit = Kit::new();
    let application = ByteServer::start(Manner::Greets(b"ready\n")).await.unwrap();
    let (proxy, _envoy, _exit) = pair(&kit, application.address(), "").await;
    let partner = Kit::new();
    for (who, authority, outcome) in [
        (&kit, "127.0.0.1:15008", None),
        (&kit, "127.0.0.2:8080", None),
        (&partner, AUTHORITY, Some("bad_signature")),
    ] {
        let exit = loopback().await;
        let (listener, mut cluster) =
            client(who, exit, proxy.address("entrance"), (CLIENT, SERVER), authority);
        // What it trusts is not the matter.
        let roots =
            "/transport_socket/typed_config/common_tls_context/validation_context/trusted_ca/filename";
        *cluster.pointer_mut(roots).unwrap() = serde_json::json!(kit.leaf(CLIENT).ca);
        let _envoy = Envoy::with(&[listener], &[cluster]).await.unwrap();
        let mut socket = soon(TcpStream::connect(exit)).await.unwrap();
        let mut said = Vec::new();
        let _ = soon(socket.read_to_end(&mut said)).await;
        assert!(said.is_empty(), "{authority}: {said:?}");
        if let Some(outcome) = outcome {
            let label = format!("outcome=\"{outcome}\"");
            eventually(outcome, async || {
                proxy.metric("fhirward_mtls_handshakes_total", &[&label]).await.unwrap() >= 1.0
            })
            .await;
        }
    }
    assert_eq!(application.connections(), 0);
}
