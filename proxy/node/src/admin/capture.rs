//! How capture stands, in metrics and in the dump.

use observe::Exposition;
use serde_json::{Value, json};

use super::metrics::count;
use crate::{
    agent::protocol::SocketKind,
    capture::{PodState, Report, SocketTally, kind_name},
};

pub(super) fn dump(report: &Report) -> Value {
    let stocks: serde_json::Map<String, Value> =
        report.stocks().into_iter().map(|(kind, held)| (kind_name(kind).to_owned(), held.into())).collect();
    json!({ "standing": report.standing(), "stocks": stocks })
}

pub(super) fn metrics(page: &mut Exposition, report: &Report) {
    standing(page, report);
    sockets(page, report);
    connections(page, report);
    kernel(page, report);
}

fn standing(page: &mut Exposition, report: &Report) {
    let standing = report.standing();
    let mut gauge = |name: &str, help: &str, on: bool| {
        page.gauge(name, help, [(Vec::new(), f64::from(u8::from(on)))]);
    };
    gauge("fhirward_capture_agent_connected", "1 while the agent is connected.", standing.agent);
    gauge(
        "fhirward_capture_superseded",
        "1 from when another proxy has taken over the pods of this one.",
        standing.superseded,
    );
    let pods = PodState::ALL.map(|state| {
        let n = standing.pods.iter().filter(|pod| pod.state == state).count();
        (vec![("state", state.name().to_owned())], count(n as u64))
    });
    page.gauge("fhirward_capture_pods", "Enrolled pods, by where they stand at this proxy.", pods);
    let tallies = report.tallies();
    let mut counter = |name: &str, help: &str, n: u64| page.counter(name, help, [(Vec::new(), count(n))]);
    counter(
        "fhirward_capture_agent_connects_total",
        "Times that the agent was reached.",
        tallies.agent_connects.get(),
    );
    counter(
        "fhirward_capture_agent_refusals_total",
        "Questions that the agent refused.",
        tallies.agent_refusals.get(),
    );
}

fn sockets(page: &mut Exposition, report: &Report) {
    let of_kind = |kind: SocketKind| vec![("kind", kind_name(kind).to_owned())];
    page.gauge(
        "fhirward_capture_stock",
        "Sockets inside pods that wait for use, by kind.",
        report.stocks().map(|(kind, held)| (of_kind(kind), count(held as u64))),
    );
    let outcomes = |(kind, tally): (SocketKind, &SocketTally)| {
        [("ready", &tally.ready), ("waited", &tally.waited), ("refused", &tally.refused)].map(
            |(outcome, n)| {
                let mut labels = of_kind(kind);
                labels.push(("outcome", outcome.to_owned()));
                (labels, count(n.get()))
            },
        )
    };
    page.counter(
        "fhirward_capture_sockets_total",
        "Sockets inside pods that were needed: ready in stock, waited for, or not there in time, \
         which refused the connection.",
        SocketKind::ALL.into_iter().zip(&report.tallies().sockets).flat_map(outcomes),
    );
}

fn connections(page: &mut Exposition, report: &Report) {
    let outcome = |outcome: &str, n: u64| (vec![("outcome", outcome.to_owned())], count(n));
    let original = &report.tallies().original;
    page.counter(
        "fhirward_capture_originals_total",
        "Connections of captured pods, by whether the kernel knew where they wanted to go; where it \
         did not, the connection was closed.",
        [outcome("found", original.found.get()), outcome("missing", original.missing.get())],
    );
    let dns = &report.tallies().dns;
    page.counter(
        "fhirward_capture_dns_queries_total",
        "DNS queries of captured pods, by how they ended.",
        [
            outcome("answered", dns.answered.get()),
            outcome("timeout", dns.timeout.get()),
            outcome("too_many", dns.too_many.get()),
            outcome("no_server", dns.no_server.get()),
            outcome("no_socket", dns.no_socket.get()),
            outcome("failed", dns.failed.get()),
        ],
    );
}

/// Absent where the maps cannot be read: zeroes would say that nothing was refused.
fn kernel(page: &mut Exposition, report: &Report) {
    let counters = match report.kernel_counters() {
        Some(Ok(counters)) => counters,
        Some(Err(error)) => {
            tracing::warn!(%error, "the counters of the BPF programs cannot be read");
            return;
        }
        None => return,
    };
    page.counter(
        "fhirward_capture_kernel_total",
        "What the BPF programs on this node counted, of all pods; `fhirward status` says what each means.",
        counters.into_iter().map(|(counter, n)| (vec![("counter", counter.name().to_owned())], count(n))),
    );
}
