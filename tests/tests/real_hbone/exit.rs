//! Our gateway calls by HBONE and as a sidecar would, and Envoy takes it.

use demo::fhir_store::{self, FhirStore};
use futures_util::future::join_all;
use serde_json::json;
use tests::{
    harness::datamesh::{GATEWAY, ROUTES},
    real::{Envoy, envoy_config::Forward},
};

use super::*;

/// Istio's name for the account of its ingress gateway.
const ACCOUNT: &str = "istio-system/istio-ingressgateway-service-account";
const SNI: &str = "outbound_.8080_._.fhir-service.datamesh.svc.cluster.local";

async fn gateway(kit: &Kit, tunnel: &str, upstream: SocketAddr) -> Proxy {
    let listeners = format!(
        "listeners:
- {{name: gateway, address: \"{{gateway}}\", gateway: {{labels: {{istio: ingressgateway}}, port: 80}}}}
mesh:
  manifests: [manifests]
  workloads:
  - {{name: datamesh/fhir-server, labels: {{app: fhir-server}}, serviceAccount: fhir-server, upstream: {{8080: \"{upstream}\"}}}}
  tunnels: {{datamesh/fhir-server: {tunnel}}}"
    );
    kit.proxy(&["gateway"], &listeners, ACCOUNT, ROUTES).await
}

async fn get(proxy: &Proxy, path: &str) -> u16 {
    let caller = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}{path}", proxy.url("gateway"));
    soon(caller.get(url).send()).await.unwrap().status().as_u16()
}

/// An Envoy that takes HBONE before a store, and our gateway that is led to it.
async fn pair(kit: &Kit, (own, clients): (&str, Name<'_>)) -> (Proxy, Envoy, FhirStore) {
    let store = fhir_store::start(fhir_store::Settings::default()).await.unwrap();
    let entrance = loopback().await;
    let (listener, cluster) = server(kit, entrance, store.addr(), (own, clients));
    let envoy = Envoy::with(&[listener], &[cluster]).await.unwrap();
    let pod = SocketAddr::from(([127, 0, 0, 1], 8080));
    let tunnel = format!("{{kind: hbone, address: \"{entrance}\"}}");
    (gateway(kit, &tunnel, pod).await, envoy, store)
}

#[tokio::test(flavor = "multi_thread")]
async fn our_gateway_calls_through_envoys_entrance() {
    let kit = Kit::new();
    // It takes nobody but our gateway's identity.
    let (proxy, envoy, store) = pair(&kit, (SERVER, Name::Exact(GATEWAY))).await;
    for _ in 0..5 {
        let answers = join_all((0..20).map(|number| {
            let path = format!("/Patient?_count={number}");
            let proxy = &proxy;
            async move { get(proxy, &path).await }
        }));
        let answers = answers.await;
        assert!(answers.iter().all(|status| *status == 200), "{answers:?}\n{}\n{}", proxy.log(), envoy.log());
    }
    assert_eq!(store.requests(), 100);
    // All of them in a few tunnels, and these on a connection or two.
    let connections = envoy.stat("http.http.downstream_cx_total").await.unwrap();
    assert!((1..=4).contains(&connections), "{connections}");
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_under_another_name_is_not_spoken_to() {
    let kit = Kit::new();
    let other = "spiffe://cluster.local/ns/datamesh/sa/other";
    let (proxy, envoy, store) = pair(&kit, (other, ANYBODY)).await;
    assert_eq!(get(&proxy, "/Patient").await, 503);
    eventually("told", async || proxy.log().contains("unexpected_identity")).await;
    assert_eq!((store.requests(), envoy.stat("http.http.downstream_rq_total").await.unwrap()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_that_does_not_take_us_is_told() {
    let kit = Kit::new();
    let (proxy, envoy, store) = pair(&kit, (SERVER, Name::Exact(CLIENT))).await;
    assert_eq!(get(&proxy, "/Patient").await, 503, "{}", proxy.log());
    let refused = async || envoy.stat("listener.127.*.ssl.fail_verify_san").await.unwrap() > 0;
    eventually("Envoy has refused us", refused).await;
    // TLS 1.3 tells a client so when it is through with its own part: the tunnel is closed again.
    let told = |log: &str| log.contains("{tunnel_closed}") || log.contains("{refused_by_peer}");
    eventually("told", async || told(&proxy.log())).await;
    assert_eq!(store.requests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn our_gateway_calls_envoy_as_a_sidecar_would() {
    let kit = Kit::new();
    let store = fhir_store::start(fhir_store::Settings::default()).await.unwrap();
    let own = kit.leaf(SERVER);
    let port = loopback().await;
    let tls = config::server_tls(&files(&own), &["istio-http/1.1", "http/1.1"], Name::Exact(GATEWAY));
    let filter = config::http("fhir", Some(Forward::Append));
    let mut listener = config::permissive(port, &tls, &filter, "60s");
    // As at Istio's sidecars: mTLS of the mesh is known by its ALPN, and here by its server name too.
    let chains = &mut listener["filter_chains"];
    *chains = json!([chains[0]]);
    chains[0]["filter_chain_match"]["application_protocols"] = json!(["istio", "istio-http/1.1", "istio-h2"]);
    chains[0]["filter_chain_match"]["server_names"] = json!([SNI]);
    let cluster = config::cluster("fhir", store.addr(), Protocol::Http1, None);
    let envoy = Envoy::with(&[listener], &[cluster]).await.unwrap();
    let proxy = gateway(&kit, "{kind: sidecar}", port).await;
    for _ in 0..20 {
        assert_eq!(get(&proxy, "/Patient").await, 200, "{}\n{}", proxy.log(), envoy.log());
    }
    for seen in store.recorded() {
        let told = seen.headers.get("x-forwarded-client-cert").unwrap().to_str().unwrap();
        assert!(told.starts_with(&format!("By={SERVER};Hash=")), "{told}");
        assert!(told.contains(&format!("URI={GATEWAY}")), "{told}");
    }
}
