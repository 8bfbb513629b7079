//! Capture against an agent that speaks the real protocol over a real socket, with real sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable)]

mod dns;
mod fake;
mod files;
mod stock;

use std::{io::ErrorKind, path::PathBuf, sync::Arc, sync::atomic::Ordering::SeqCst, time::Duration};

use dataplane::capture::{Capture, Change, Pod, Use};
use tokio_util::sync::CancellationToken;

use self::fake::{Agent, Remembered, Shared, eventually, me, pod};
use super::{PodState, Report, Standing, session::Address, start_at};
use crate::{
    agent::protocol::{Ask, Refusal, Reply},
    settings::{CaptureSettings, DnsSettings, StockSettings},
};

/// The proxy's side, running until dropped.
struct Proxy {
    capture: Capture,
    report: Report,
    memory: Arc<Remembered>,
    stop: CancellationToken,
    _last: tokio_util::sync::DropGuard,
}

fn settings() -> CaptureSettings {
    CaptureSettings {
        stock: StockSettings { initial: 4, most: 64, total: 1000, wait_ms: 20_000 },
        dns: DnsSettings { queries_per_pod: 16, queries: 32, timeout_ms: 500 },
        ..CaptureSettings::default()
    }
}

fn start(shared: &Shared, settings: &CaptureSettings) -> Proxy {
    start_at_socket(shared.socket(), settings)
}

fn start_at_socket(socket: PathBuf, settings: &CaptureSettings) -> Proxy {
    let memory = Arc::new(Remembered::default());
    let address = Address {
        socket,
        user: me().0,
        open: memory.open(),
        started: 1,
        answer_limit: Duration::from_secs(2),
        linger: Duration::from_millis(50),
    };
    let (stop, last) = (CancellationToken::new(), CancellationToken::new());
    let (capture, report) = start_at(address, settings, stop.clone(), last.clone());
    Proxy { capture, report, memory, stop, _last: last.drop_guard() }
}

impl Proxy {
    /// The next change that is not about the node's addresses.
    async fn change(&mut self) -> Change {
        loop {
            let change = tokio::time::timeout(Duration::from_secs(60), self.capture.changes.recv());
            match change.await.expect("a change").expect("the session goes on") {
                Change::NodeAddresses(_) => {}
                change => return change,
            }
        }
    }

    async fn taken(&mut self) -> Arc<Pod> {
        match self.change().await {
            Change::Take { pod, .. } => pod,
            other => panic!("{other:?}"),
        }
    }

    async fn until(&self, what: &str, holds: impl Fn(&Standing) -> bool) {
        eventually(what, || holds(&self.report.standing())).await;
    }

    async fn socket(&self, pod: &Arc<Pod>) -> std::io::Result<tokio::net::TcpSocket> {
        self.capture.plumbing.socket(pod, Use::Egress, false).await
    }

    fn held(&self) -> usize {
        self.report.stocks().iter().map(|(_, held)| held).sum()
    }
}

fn serves_all(standing: &Standing) -> bool {
    !standing.pods.is_empty() && standing.pods.iter().all(|pod| pod.state == PodState::Serving)
}

#[tokio::test]
async fn an_enrolled_pod_is_taken_on_and_its_stocks_are_filled() {
    let shared = Shared::new();
    let agent = Agent::start(&shared);
    shared.pods.send_replace(vec![pod(1)]);
    let mut proxy = start(&shared, &settings());
    let Change::Take { pod, inbound, outbound } = proxy.change().await else { panic!() };
    assert_eq!((pod.name.to_string(), pod.id.slot), ("data/pod1".to_owned(), 1));
    assert!(pod.transparent);
    let listeners = shared.listeners.lock().unwrap().values().next().unwrap().clone();
    assert_eq!(inbound[0].local_addr().unwrap(), listeners.inbound);
    assert_eq!(outbound[0].local_addr().unwrap(), listeners.outbound);
    proxy.until("it is in service", serves_all).await;
    assert!(proxy.report.standing().complete && proxy.report.standing().agent);
    // Asked for before it was in service: the first connection waits for nothing. IPv4 alone, as the
    // pod has it.
    eventually("three stocks of four", || proxy.held() == 12).await;
    for _ in 0..3 {
        proxy.socket(&pod).await.unwrap();
    }
    let tally = &proxy.report.tallies().sockets[0];
    assert_eq!((tally.ready.get(), tally.waited.get(), tally.refused.get()), (3, 0, 0));
    eventually("filled again", || proxy.held() == 12).await;
    drop(agent);
}

#[tokio::test]
async fn without_an_agent_it_says_so_and_goes_on_trying() {
    let shared = Shared::new();
    let mut proxy = start(&shared, &settings());
    proxy.until("the problem is told", |standing| standing.problem.is_some()).await;
    let standing = proxy.report.standing();
    assert!(!standing.agent && !standing.complete, "{standing:?}");
    assert!(standing.problem.unwrap().contains("agent.sock"));
    let _agent = Agent::start(&shared);
    shared.pods.send_replace(vec![pod(1)]);
    proxy.taken().await;
    proxy.until("complete", |standing| standing.complete && standing.agent).await;
}

#[tokio::test]
async fn a_killed_agent_is_missed_by_nobody_while_the_stock_lasts() {
    let shared = Shared::new();
    let agent = Agent::start(&shared);
    shared.pods.send_replace(vec![pod(1)]);
    let settings =
        CaptureSettings { stock: StockSettings { wait_ms: 300, ..settings().stock }, ..settings() };
    let mut proxy = start(&shared, &settings);
    let served = proxy.taken().await;
    proxy.until("it is in service", serves_all).await;
    eventually("filled", || proxy.held() == 12).await;
    agent.kill().await;
    proxy.until("it is told", |standing| !standing.agent).await;
    assert!(proxy.report.standing().complete, "what is served goes on being served");
    for _ in 0..4 {
        proxy.socket(&served).await.unwrap();
    }
    // Nothing left: waited for as long as an agent that restarts takes, then refused, then at once.
    let error = proxy.socket(&served).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceBusy, "{error}");
    assert_eq!(error.to_string(), "no socket inside the pod is ready, and there is no agent to make one");
    let began = std::time::Instant::now();
    assert!(proxy.socket(&served).await.is_err());
    assert!(began.elapsed() < Duration::from_millis(300), "at once, for it has been away for long");
    assert_eq!(proxy.report.tallies().sockets[0].refused.get(), 2);
    // Back: it hears who is served, is not asked for listeners again, and fills the stock.
    let _agent = Agent::start(&shared);
    proxy.until("it is back", |standing| standing.agent).await;
    proxy.socket(&served).await.unwrap();
    let key = pod(1).key;
    assert_eq!(shared.heard(|ask| matches!(ask, Ask::Hello(hello) if hello.serving == [key])), 1);
    assert_eq!(shared.heard(|ask| matches!(ask, Ask::Listen { .. })), 1);
    assert!(proxy.capture.changes.try_recv().is_ok_and(|change| matches!(change, Change::NodeAddresses(_))));
    assert!(proxy.capture.changes.try_recv().is_err(), "no pod was taken or released");
}

#[tokio::test]
async fn connections_that_find_the_stock_empty_are_served_when_the_agent_comes_back_in_time() {
    let shared = Shared::new();
    let agent = Agent::start(&shared);
    shared.pods.send_replace(vec![pod(1)]);
    let mut proxy = start(&shared, &settings());
    let served = proxy.taken().await;
    eventually("filled", || proxy.held() == 12).await;
    agent.kill().await;
    let took = async {
        for _ in 0..40 {
            proxy.socket(&served).await.unwrap();
        }
    };
    let back = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        Agent::start(&shared)
    };
    let ((), _agent) = tokio::join!(took, back);
    assert_eq!(proxy.report.tallies().sockets[0].refused.get(), 0);
}

#[tokio::test]
async fn a_pod_that_vanishes_is_released_and_its_sockets_close() {
    let shared = Shared::new();
    let _agent = Agent::start(&shared);
    shared.pods.send_replace(vec![pod(1), pod(2)]);
    let mut proxy = start(&shared, &settings());
    let mut ids = [proxy.taken().await, proxy.taken().await];
    ids.sort_by_key(|pod| pod.id);
    eventually("filled", || proxy.held() == 24).await;
    shared.pods.send_replace(vec![pod(2)]);
    let Change::Release { id } = proxy.change().await else { panic!() };
    assert_eq!(id, ids[0].id);
    eventually("its stocks are gone", || proxy.held() == 12).await;
    assert!(proxy.socket(&ids[0]).await.is_err());
    assert!(proxy.socket(&ids[1]).await.is_ok());
    // The same slot again is another pod.
    shared.pods.send_replace(vec![pod(1), pod(2)]);
    let again = proxy.taken().await;
    assert_eq!(again.id.slot, 1);
    assert_ne!(again.id, ids[0].id);
}

#[tokio::test]
async fn five_hundred_pods_come_and_go_and_leave_nothing() {
    let shared = Shared::new();
    let _agent = Agent::start(&shared);
    let mut proxy = start(&shared, &settings());
    for round in 0..5 {
        let pods: Vec<_> = (0..100).map(|slot| fake::pod(slot + round)).collect();
        shared.pods.send_replace(pods);
        for _ in 0..100 {
            proxy.taken().await;
        }
        shared.pods.send_replace(Vec::new());
        for _ in 0..100 {
            assert!(matches!(proxy.change().await, Change::Release { .. }));
        }
    }
    eventually("no socket waits", || proxy.held() == 0).await;
    eventually("no pod is known", || proxy.report.fleet.members().is_empty()).await;
    assert_eq!(proxy.report.fleet.depot.held(), 0);
}

#[tokio::test]
async fn new_facts_are_taken_up_with_new_listeners() {
    let shared = Shared::new();
    let _agent = Agent::start(&shared);
    shared.pods.send_replace(vec![pod(1)]);
    let mut proxy = start(&shared, &settings());
    let before = proxy.taken().await;
    proxy.until("it is in service", serves_all).await;
    let mut changed = pod(1);
    changed.addresses.push("10.77.1.3".parse().unwrap());
    shared.pods.send_replace(vec![changed.clone()]);
    let after = proxy.taken().await;
    assert_eq!((after.id, &after.addresses), (before.id, &changed.addresses));
    // Listeners that were lost in mending; an enrolment of an earlier agent has lost none.
    for (enrolment, asked) in [(7, 3), (0, 3), (8, 4)] {
        shared.pods.send_replace(vec![crate::agent::protocol::PodInfo { enrolment, ..changed.clone() }]);
        if asked > shared.heard(|ask| matches!(ask, Ask::Listen { .. })) {
            assert_eq!(proxy.taken().await.id, before.id);
        }
        proxy.until("it is known", |standing| standing.pods[0].info.enrolment == enrolment).await;
        proxy.until("it is in service", serves_all).await;
        assert_eq!(shared.heard(|ask| matches!(ask, Ask::Listen { .. })), asked, "{enrolment}");
    }
    // Another workload in its place is another pod.
    changed.workload = "data/other".to_owned();
    shared.pods.send_replace(vec![changed]);
    assert!(matches!(proxy.change().await, Change::Release { id } if id == before.id));
    assert_ne!(proxy.taken().await.id, before.id);
}

#[tokio::test]
async fn what_the_agent_refuses_is_asked_again() {
    let shared = Shared::new();
    shared.refuse.store(1, SeqCst);
    let _agent = Agent::start(&shared);
    shared.pods.send_replace(vec![pod(1)]);
    let mut proxy = start(&shared, &settings());
    proxy.until("it is told", |standing| standing.pods.iter().any(|pod| pod.state == PodState::Failed)).await;
    assert!(proxy.report.standing().complete, "one pod that cannot be served keeps nobody waiting");
    let served = proxy.taken().await;
    proxy.until("it is in service", serves_all).await;
    // A stock that is refused is asked for again too, and a family that the pod has not is not.
    shared.refuse.store(2, SeqCst);
    for _ in 0..20 {
        proxy.socket(&served).await.unwrap();
    }
    let error = proxy.capture.plumbing.socket(&served, Use::Ingress, true).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NetworkUnreachable);
    assert!(proxy.report.tallies().agent_refusals.get() >= 2);
}

#[tokio::test]
async fn an_agent_that_hangs_is_left_and_reached_again() {
    let shared = Shared::new();
    let _agent = Agent::start(&shared);
    shared.hang.store(true, SeqCst);
    shared.pods.send_replace(vec![pod(1)]);
    let mut proxy = start(&shared, &settings());
    eventually("it is connected", || shared.connections.load(SeqCst) == 1).await;
    eventually("it is reached again", || shared.connections.load(SeqCst) > 1).await;
    shared.hang.store(false, SeqCst);
    proxy.taken().await;
    proxy.until("it is in service", serves_all).await;
}

#[tokio::test]
async fn nonsense_from_the_agent_costs_the_connection_alone() {
    let shared = Shared::new();
    let _agent = Agent::start(&shared);
    shared.pods.send_replace(vec![pod(1)]);
    let mut proxy = start(&shared, &settings());
    let served = proxy.taken().await;
    proxy.until("it is in service", serves_all).await;
    let nonsense = [
        Reply::Listeners { pod: pod(1).key, v4: true, v6: true },
        Reply::Sockets { pod: pod(1).key, kind: crate::agent::protocol::SocketKind::Egress4 },
        Reply::Welcome(crate::agent::protocol::Welcome { version: 1, node_addresses: Vec::new() }),
    ];
    for (n, nonsense) in (2..).zip(nonsense) {
        shared.say(nonsense);
        eventually("it is reached again", || shared.connections.load(SeqCst) >= n).await;
        proxy.until("it is reached again", |standing| standing.agent).await;
        proxy.socket(&served).await.unwrap();
    }
    // Of pods that nobody knows, and of nothing asked: no harm.
    shared.say(Reply::Ready { pod: pod(9).key });
    shared.say(Reply::Refused { reason: Refusal::Busy, detail: String::new() });
    shared.say(Reply::Node { addresses: Vec::new() });
    proxy.socket(&served).await.unwrap();
    assert!(proxy.report.standing().agent);
}

#[tokio::test]
async fn when_another_proxy_takes_over_this_one_drains() {
    let shared = Shared::new();
    let agent = Agent::start(&shared);
    shared.pods.send_replace(vec![pod(1)]);
    let mut proxy = start(&shared, &settings());
    let served = proxy.taken().await;
    proxy.until("it is in service", serves_all).await;
    eventually("filled", || proxy.held() == 12).await;
    shared.say(Reply::Superseded {});
    proxy.stop.cancelled().await;
    proxy.until("it is told", |standing| standing.superseded).await;
    // What is under way goes on: sockets come, new pods do not.
    for _ in 0..40 {
        proxy.socket(&served).await.unwrap();
    }
    shared.pods.send_replace(vec![pod(1), pod(2)]);
    proxy.until("it is told", |standing| standing.pods.len() == 2).await;
    assert_eq!(shared.heard(|ask| matches!(ask, Ask::Listen { .. })), 1);
    // Lost, it does not come back: it would have taken the pods from its successor.
    agent.kill().await;
    proxy.until("it is lost", |standing| !standing.agent).await;
    let connections = shared.connections.load(SeqCst);
    let _agent = Agent::start(&shared);
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(shared.connections.load(SeqCst), connections);
}

#[tokio::test]
async fn where_a_connection_wanted_to_go_is_asked_once() {
    let shared = Shared::new();
    let _agent = Agent::start(&shared);
    shared.pods.send_replace(vec![pod(1)]);
    let mut proxy = start(&shared, &settings());
    let Change::Take { pod: served, outbound, .. } = proxy.change().await else { panic!() };
    let client = tokio::net::TcpStream::connect(outbound[0].local_addr().unwrap()).await.unwrap();
    let (accepted, peer) = outbound[0].accept().await.unwrap();
    assert_eq!(peer, client.local_addr().unwrap());
    let wanted = "10.77.9.9:443".parse().unwrap();
    proxy.memory.originals.lock().unwrap().insert((pod(1).key.netns, peer), wanted);
    let ask = || proxy.capture.plumbing.original(&served, &accepted, peer);
    assert_eq!((ask(), ask()), (Some(wanted), None));
    let tally = &proxy.report.tallies().original;
    assert_eq!((tally.found.get(), tally.missing.get()), (1, 1));
    assert_eq!(proxy.report.kernel_counters().unwrap().unwrap()[0].1, 3);
}
