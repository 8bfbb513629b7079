//! The agent's `/metrics` and `/healthz`, for a scraper on loopback.
//!
//! A privileged process parses as little as it can: of a request only its first line is looked at, no
//! body is read, and each connection carries one answer.

use std::{sync::mpsc::Sender, time::Duration};

use observe::Exposition;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, oneshot},
};
use tokio_util::sync::CancellationToken;

use super::steward::{Figures, Order};

/// Longest request head, bytes.
const MAX_HEAD: usize = 4096;
/// Longest wait for a request, an answer of the steward's, or for the answer to be taken.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most connections at a time; others wait.
const MAX_CONNECTIONS: usize = 16;

/// Serves the pages until told to stop.
pub(super) async fn serve(listener: TcpListener, orders: Sender<Order>, stop: CancellationToken) {
    let places = std::sync::Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = std::sync::Arc::clone(&places).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((socket, _)) => {
                let orders = orders.clone();
                tokio::spawn(async move {
                    // A scraper that goes away, or never comes to the point, is no matter.
                    let _ = tokio::time::timeout(PATIENCE, answer(socket, &orders)).await;
                    drop(place);
                });
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

async fn answer(mut socket: TcpStream, orders: &Sender<Order>) -> std::io::Result<()> {
    let mut head = Vec::with_capacity(512);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if head.len() >= MAX_HEAD || socket.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let (status, kind, body) = page(&head, orders).await;
    let length = body.len();
    let text = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    socket.write_all(text.as_bytes()).await?;
    socket.shutdown().await
}

const PLAIN: &str = "text/plain; charset=utf-8";

async fn page(head: &[u8], orders: &Sender<Order>) -> (&'static str, &'static str, String) {
    let mut words = head.split(|byte| *byte == b'\r').next().unwrap_or_default().split(|byte| *byte == b' ');
    match (words.next(), words.next()) {
        (Some(b"GET"), Some(b"/healthz")) => ("200 OK", PLAIN, "ok\n".to_owned()),
        (Some(b"GET"), Some(b"/metrics")) => match figures(orders).await {
            Some(figures) => ("200 OK", Exposition::CONTENT_TYPE, metrics(&figures)),
            None => ("503 Service Unavailable", PLAIN, "the agent is ending\n".to_owned()),
        },
        (Some(b"GET"), _) => ("404 Not Found", PLAIN, "/metrics, /healthz\n".to_owned()),
        _ => ("405 Method Not Allowed", PLAIN, "GET only\n".to_owned()),
    }
}

async fn figures(orders: &Sender<Order>) -> Option<Figures> {
    let (ask, answer) = oneshot::channel();
    orders.send(Order::Figures(ask)).ok()?;
    answer.await.ok()
}

fn metrics(figures: &Figures) -> String {
    let mut page = Exposition::default();
    let pods = figures.pods.iter().map(|((state, reason), count)| {
        (vec![("state", (*state).to_owned()), ("reason", (*reason).to_owned())], float(*count))
    });
    page.gauge("fhirward_agent_pods", "Pods on this node, by where they stand and why.", pods);
    let gauges = [
        ("fhirward_agent_proxies", "Connected proxies.", figures.proxies),
        (
            "fhirward_agent_source_problems",
            "Sources of pods that cannot be looked at, wholly or in part.",
            figures.troubles,
        ),
        (
            "fhirward_agent_manifest_problems",
            "Errors in the manifests; the last good ones hold.",
            figures.problems,
        ),
        (
            "fhirward_agent_snapshot_version",
            "Version of the manifests in force; 0: none yet.",
            figures.snapshot,
        ),
    ];
    for (name, help, value) in gauges {
        page.gauge(name, help, [(Vec::new(), float(value))]);
    }
    let tally = figures.tally;
    let counters = [
        ("fhirward_agent_enrolments_total", "Pods enrolled, or mended.", tally.enrolled),
        ("fhirward_agent_unenrolments_total", "Pods un-enrolled.", tally.unenrolled),
        (
            "fhirward_agent_collected_total",
            "Pods whose remains were removed after they had gone.",
            tally.collected,
        ),
        (
            "fhirward_agent_failures_total",
            "Steps that the kernel refused; each is tried again.",
            tally.failed,
        ),
        (
            "fhirward_agent_ended_connections_total",
            "Connections from before an enrolment that were ended.",
            tally.ended_connections,
        ),
        ("fhirward_agent_sockets_total", "Sockets made inside pods and handed to proxies.", tally.sockets),
        ("fhirward_agent_refused_requests_total", "Requests of proxies that were refused.", tally.refused),
        ("fhirward_agent_superseded_total", "Proxies that another took over from.", tally.superseded),
    ];
    for (name, help, value) in counters {
        page.counter(name, help, [(Vec::new(), float(value))]);
    }
    let events =
        figures.counters.iter().map(|(event, count)| (vec![("event", (*event).to_owned())], float(*count)));
    page.counter("fhirward_bpf_events_total", "What the BPF programs did on this node, by event.", events);
    page.into_text()
}

/// Samples are floating point by format.
#[allow(clippy::cast_precision_loss)]
fn float(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// What the pages answer to some bytes; the steward is a thread that knows one figure.
    async fn get(request: &[u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (orders, received) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            while let Ok(Order::Figures(answer)) = received.recv() {
                let mut figures = Figures { proxies: 2, ..Figures::default() };
                figures.pods.insert(("serving", "opted_in"), 7);
                figures.counters.push(("redirected_v4", 5));
                answer.send(figures).unwrap();
            }
        });
        let stop = CancellationToken::new();
        tokio::spawn(serve(listener, orders, stop.clone()));
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).await.unwrap();
        stop.cancel();
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test]
    async fn the_figures_are_told() {
        let page = get(b"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
        for line in [
            "fhirward_agent_pods{state=\"serving\",reason=\"opted_in\"} 7\n",
            "fhirward_agent_proxies 2\n",
            "fhirward_bpf_events_total{event=\"redirected_v4\"} 5\n",
        ] {
            assert!(page.contains(line), "{line} is not in {page}");
        }
    }

    #[tokio::test]
    async fn nothing_else_is_answered() {
        let cases: [(&[u8], &str); 4] = [
            (b"GET /healthz HTTP/1.1\r\n\r\n", "HTTP/1.1 200"),
            (b"GET /metrics/../x HTTP/1.1\r\n\r\n", "HTTP/1.1 404"),
            (b"POST /metrics HTTP/1.1\r\n\r\n", "HTTP/1.1 405"),
            (b"\r\n\r\n", "HTTP/1.1 405"),
        ];
        for (request, answer) in cases {
            let said = get(request).await;
            assert!(said.starts_with(answer), "{}: {said}", String::from_utf8_lossy(request));
        }
        let mut long = b"GET /metrics HTTP/1.1\r\n".to_vec();
        long.resize(MAX_HEAD, b'x');
        assert_eq!(get(&long).await, "");
    }
}
