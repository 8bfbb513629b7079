#![allow(clippy::unwrap_used)]

use std::{sync::Arc, time::Duration};

use super::{Exposition, Metrics};
use crate::{
    ObserveSettings, Record,
    record::{Party, Protocol, Service, WorkloadLabels},
};

fn record(host: &str) -> Record {
    let labels = WorkloadLabels {
        workload: "fhir-server".to_owned(),
        namespace: "datamesh".to_owned(),
        app: "fhir-server".to_owned(),
        canonical_service: "fhir-server".to_owned(),
        ..WorkloadLabels::default()
    };
    Record {
        destination: Party {
            workload: Some(Arc::new(labels)),
            principal: Some("cluster.local/ns/datamesh/sa/default".into()),
            address: None,
        },
        service: Service { host: Some(host.into()), name: None, namespace: None },
        status: Some(200),
        duration: Duration::from_millis(3),
        mutual_tls: true,
        token: "ok",
        ..Record::default()
    }
}

fn page(metrics: &Metrics) -> String {
    Exposition::of(metrics).unwrap().into_text()
}

#[test]
fn every_metric_registers() {
    let metrics = Metrics::new(&ObserveSettings::default());
    metrics.observe(&record("h"));
    assert!(page(&metrics).contains("istio_requests_total{"));
}

#[test]
fn all_labels_are_there_and_unknown_where_not_known() {
    let metrics = Metrics::new(&ObserveSettings::default());
    metrics.observe(&record("fhir-service.datamesh.svc.cluster.local"));
    let page = page(&metrics);
    let line = page.lines().find(|line| line.starts_with("istio_requests_total{")).unwrap();
    for label in super::labels::NAMES {
        assert!(line.contains(&format!("{label}=\"")), "{label} is missing in {line}");
    }
    for part in [
        r#"source_workload="unknown""#,
        r#"destination_workload="fhir-server""#,
        r#"destination_principal="spiffe://cluster.local/ns/datamesh/sa/default""#,
        r#"destination_canonical_revision="latest""#,
        r#"destination_cluster="Kubernetes""#,
        r#"connection_security_policy="mutual_tls""#,
        r#"response_flags="-""#,
        r#"grpc_response_status="""#,
    ] {
        assert!(line.contains(part), "{part} is missing in {line}");
    }
}

#[test]
fn made_up_hosts_cannot_fill_the_memory() {
    let metrics = Metrics::new(&ObserveSettings { max_series: 10, ..ObserveSettings::default() });
    for index in 0..1_000 {
        metrics.observe(&record(&format!("host-{index}")));
    }
    let page = page(&metrics);
    let lines: Vec<_> = page.lines().filter(|line| line.starts_with("istio_requests_total{")).collect();
    assert_eq!(lines.len(), 11);
    let folded = lines.iter().find(|line| line.contains(r#"destination_service="unknown""#)).unwrap();
    assert!(folded.ends_with(" 990"), "{folded}");
}

#[test]
fn grpc_messages_are_counted_for_grpc_alone() {
    let metrics = Metrics::new(&ObserveSettings::default());
    metrics.observe(&record("h"));
    assert!(!page(&metrics).contains("istio_request_messages_total{"));
    let grpc = Record { protocol: Protocol::Grpc, grpc_status: Some(7), messages: (2, 1), ..record("h") };
    metrics.observe(&grpc);
    let page = page(&metrics);
    let line = page.lines().find(|line| line.starts_with("istio_request_messages_total{")).unwrap();
    assert!(line.contains(r#"grpc_response_status="7""#) && line.ends_with(" 2"), "{line}");
}

#[test]
fn states_are_written_with_escaped_labels() {
    let mut page = Exposition::default();
    page.gauge("fhirward_issuer_health", "Help.", [(vec![("issuer", "a\"b\\".to_owned())], 1.0)]);
    assert_eq!(
        page.into_text(),
        "# HELP fhirward_issuer_health Help.\n# TYPE fhirward_issuer_health gauge\n\
         fhirward_issuer_health{issuer=\"a\\\"b\\\\\"} 1\n"
    );
}

#[test]
fn a_refused_connection_is_no_request() {
    let metrics = Metrics::new(&ObserveSettings::default());
    metrics.observe(&Record { refused: Some("strict_plaintext"), ..Record::default() });
    let page = page(&metrics);
    assert!(page.contains("fhirward_connections_refused_total{reason=\"strict_plaintext\"} 1"), "{page}");
    assert!(!page.contains("istio_requests_total{"), "{page}");
}

#[test]
fn raw_connections_are_bytes_and_no_requests() {
    let metrics = Metrics::new(&ObserveSettings::default());
    let raw = Record {
        protocol: Protocol::Tcp,
        status: None,
        token: "none",
        request_bytes: 3,
        response_bytes: 40,
        ..record("db.datamesh.svc.cluster.local")
    };
    metrics.observe(&raw);
    metrics.observe(&raw);
    let page = page(&metrics);
    let line = |name: &str| page.lines().find(|line| line.starts_with(name));
    let sent = line("istio_tcp_sent_bytes_total{").unwrap();
    assert!(sent.ends_with(" 80") && sent.contains(r#"request_protocol="tcp""#), "{sent}");
    assert!(!sent.contains("response_code"), "{sent}");
    assert!(line("istio_tcp_received_bytes_total{").unwrap().ends_with(" 6"));
    // Refused before they opened: what is open is opened less closed.
    for name in ["istio_tcp_connections_opened_total{", "istio_tcp_connections_closed_total{"] {
        assert!(line(name).unwrap().ends_with(" 2"), "{name}");
    }
    assert!(line("istio_requests_total{").is_none());
    assert!(line("fhirward_token_checks_total{").is_none());
}

#[test]
fn a_connection_is_counted_when_it_opens_while_it_lasts_and_at_its_end() {
    let metrics = Metrics::new(&ObserveSettings::default());
    let mut raw = Record { protocol: Protocol::Tcp, status: None, ..record("db.datamesh.svc.cluster.local") };
    let count = |name: &str| {
        let page = page(&metrics);
        let line = page.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    metrics.opened(&raw);
    raw.opened = true;
    metrics.moved(&raw, (5, 100));
    assert_eq!(count("istio_tcp_connections_opened_total{"), 1);
    assert_eq!(count("istio_tcp_connections_closed_total{"), 0);
    assert_eq!(count("istio_tcp_sent_bytes_total{"), 100);
    (raw.request_bytes, raw.response_bytes, raw.counted_bytes) = (7, 150, (5, 100));
    metrics.observe(&raw);
    assert_eq!(count("istio_tcp_connections_opened_total{"), 1);
    assert_eq!(count("istio_tcp_connections_closed_total{"), 1);
    assert_eq!(count("istio_tcp_sent_bytes_total{"), 150);
    assert_eq!(count("istio_tcp_received_bytes_total{"), 7);
}

#[test]
fn a_connection_between_two_pods_of_the_node_is_reported_for_both() {
    let metrics = Metrics::new(&ObserveSettings::default());
    let raw = Record {
        protocol: Protocol::Tcp,
        status: None,
        both_sides: true,
        mutual_tls: true,
        response_bytes: 40,
        ..record("db.datamesh.svc.cluster.local")
    };
    metrics.opened(&raw);
    metrics.observe(&Record { opened: true, ..raw });
    let page = page(&metrics);
    for (reporter, policy) in [("source", "unknown"), ("destination", "mutual_tls")] {
        let of_side = |line: &&str| {
            line.contains(&format!(r#"reporter="{reporter}""#))
                && line.contains(&format!(r#"connection_security_policy="{policy}""#))
        };
        for (name, value) in
            [("connections_opened", 1), ("connections_closed", 1), ("sent_bytes", 40), ("received_bytes", 0)]
        {
            let start = format!("istio_tcp_{name}_total{{");
            let line = page.lines().filter(|line| line.starts_with(&start)).find(of_side).unwrap();
            assert!(line.ends_with(&format!(" {value}")), "{line}");
        }
    }
}
