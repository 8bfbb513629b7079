//! Every bad certificate, refused for its own reason: no answer, no request upstream, a metric.

use certs::{KeyUse, Leaf, OddIssuer, OddRequest, Purpose, odd_self_signed};

use super::stand::*;

fn spoilt(spoil: impl FnOnce(&mut OddRequest)) -> OddRequest {
    let mut request = OddRequest::workload(CLIENT);
    spoil(&mut request);
    request
}

/// Name of the case, certificate, reason.
pub fn cases(stand: &Stand) -> Vec<(&'static str, Leaf, &'static str)> {
    let root = &stand.clients;
    let of = |request: OddRequest| root.issue_odd(&request).unwrap();
    let uri = |uri: &str| of(spoilt(|leaf| leaf.uris = vec![uri.to_owned()]));
    let below = |issuer: OddIssuer| {
        root.odd_intermediate("intermediate", &issuer).unwrap().issue_odd(&spoilt(|_| {})).unwrap()
    };
    let intermediate = root.odd_intermediate("intermediate", &OddIssuer::default()).unwrap();
    let partner = "spiffe://partner.example/ns/datamesh/sa/gateway";
    vec![
        ("expired", of(spoilt(|leaf| leaf.validity = Some(around_now(-7200, -60)))), "expired"),
        ("not yet valid", of(spoilt(|leaf| leaf.validity = Some(around_now(7200, 9000)))), "not_yet_valid"),
        ("unknown trust domain", uri("spiffe://elsewhere/ns/a/sa/b"), "unknown_trust_domain"),
        ("another domain's name", uri(partner), "wrong_trust_domain"),
        ("another domain's root", stand.partners.issue_odd(&spoilt(|_| {})).unwrap(), "wrong_trust_domain"),
        ("no SAN", of(spoilt(|leaf| leaf.uris.clear())), "no_san"),
        ("two URI SANs", of(spoilt(|leaf| leaf.uris.push(SERVER.to_owned()))), "many_uri_sans"),
        ("the same URI SAN twice", of(spoilt(|leaf| leaf.uris.push(CLIENT.to_owned()))), "many_uri_sans"),
        (
            "DNS SAN only",
            of(spoilt(|leaf| (leaf.uris, leaf.dns) = (Vec::new(), vec!["gateway".to_owned()]))),
            "no_uri_san",
        ),
        ("self-signed", odd_self_signed(&spoilt(|_| {})).unwrap(), "self_signed"),
        ("intermediate missing", intermediate.issue_alone(&spoilt(|_| {})).unwrap(), "incomplete_chain"),
        ("CA flag", of(spoilt(|leaf| leaf.ca = true)), "ca_as_leaf"),
        ("no key usage", of(spoilt(|leaf| leaf.uses.clear())), "leaf_key_usage"),
        ("signs certificates", of(spoilt(|leaf| leaf.uses.push(KeyUse::KeyCertSign))), "leaf_key_usage"),
        (
            "signs no handshakes",
            of(spoilt(|leaf| leaf.uses = vec![KeyUse::KeyEncipherment])),
            "leaf_key_usage",
        ),
        ("a server's", of(spoilt(|leaf| leaf.purpose = Some(Purpose::Server))), "extended_key_usage"),
        ("issuer that is no CA", below(OddIssuer { ca: false, ..OddIssuer::default() }), "issuer_not_ca"),
        (
            "issuer that may not sign",
            below(OddIssuer { uses: vec![KeyUse::DigitalSignature], ..OddIssuer::default() }),
            "issuer_key_usage",
        ),
        (
            "issuer that has expired",
            below(OddIssuer { validity: Some(around_now(-7200, -60)), ..OddIssuer::default() }),
            "expired",
        ),
        ("a quote in the id", uri(&format!("{CLIENT}\"")), "invalid_spiffe_id"),
        ("a query in the id", uri(&format!("{CLIENT}?a=b")), "invalid_spiffe_id"),
        ("a percent sign in the id", uri(&format!("{CLIENT}%41")), "invalid_spiffe_id"),
        (
            "an empty segment in the id",
            uri("spiffe://cluster.local//ns/datamesh/sa/gateway"),
            "invalid_spiffe_id",
        ),
        ("dots in the id", uri("spiffe://cluster.local/ns/datamesh/sa/../gateway"), "invalid_spiffe_id"),
        ("a slash behind the id", uri(&format!("{CLIENT}/")), "invalid_spiffe_id"),
        ("a semicolon in the id", uri(&format!("{CLIENT};By=spiffe://x")), "invalid_spiffe_id"),
        ("an id of no workload", uri("spiffe://cluster.local/gateway"), "not_a_workload_id"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_certificate_is_refused_for_its_own_reason() {
    let stand = Stand::open(STRICT, "", "").await;
    for (case, leaf, reason) in cases(&stand) {
        let before = stand.handshakes(reason).await;
        let answer = stand.get(&leaf, "/Patient").await;
        assert!(answer.as_ref().map_or(true, String::is_empty), "{case}: {answer:?}");
        stand
            .eventually(&format!("{case}: {reason}"), async || stand.handshakes(reason).await > before)
            .await;
    }
    assert_eq!(stand.store.requests(), 0, "{:?}", stand.store.recorded());
    // The same reasons are in the access log and among the refused connections.
    let log = stand.proxy.log();
    assert!(log.contains("\"refused\":\"many_uri_sans\""), "{log}");
    let label = ["reason=\"many_uri_sans\""];
    assert_eq!(stand.proxy.metric("fhirward_connections_refused_total", &label).await.unwrap(), 2.0);
    assert!(stand.get(&stand.leaf(CLIENT), "/Patient").await.unwrap().starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_certificate_nobody_gets_in() {
    for mode in [STRICT, PERMISSIVE] {
        let stand = Stand::open(mode, "", "").await;
        let client = std::sync::Arc::new(stand.client(None, &[]));
        let answer = match connect(stand.address(), &client, "fhir.example").await {
            Ok(mut io) => ask(&mut io, &get("/Patient")).await,
            Err(error) => Err(error),
        };
        assert!(answer.as_ref().map_or(true, String::is_empty), "{answer:?}");
        stand.eventually("counted", async || stand.handshakes("no_certificate").await == 1.0).await;
        assert_eq!(stand.store.requests(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_revoked_while_the_proxy_runs() {
    let stand = Stand::open(STRICT, "", "").await;
    let [bad, good] = [stand.leaf(CLIENT), stand.leaf(CLIENT)];
    assert!(stand.get(&bad, "/Patient").await.unwrap().starts_with("HTTP/1.1 200"));
    let list = stand.clients.revocation_list(&[&bad], around_now(-60, 3600)).unwrap();
    stand.proxy.write("revoked.pem", &list).unwrap();
    stand
        .eventually("revoked", async || {
            let answer = stand.get(&bad, "/Patient").await;
            !answer.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
        })
        .await;
    stand.eventually("counted", async || stand.handshakes("revoked").await >= 1.0).await;
    assert!(stand.get(&good, "/Patient").await.unwrap().starts_with("HTTP/1.1 200"));
    // A list that cannot be read leaves the old one in force, and is told.
    stand.proxy.write("revoked.pem", "broken").unwrap();
    stand
        .eventually("told", async || stand.proxy.metric("fhirward_trust_problem", &[]).await.unwrap() == 1.0)
        .await;
    let answer = stand.get(&bad, "/Patient").await;
    assert!(!answer.is_ok_and(|answer| answer.contains("HTTP")));
}
