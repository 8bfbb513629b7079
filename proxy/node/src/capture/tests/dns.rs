//! DNS queries of pods.

use std::{net::SocketAddr, time::Duration};

use tokio::net::UdpSocket;

use super::{Agent, Change, Proxy, Shared, eventually, pod, settings, start};

/// An application's socket, the DNS sockets of its pod, and the proxy.
async fn world() -> (Agent, Proxy, UdpSocket, Vec<SocketAddr>) {
    let shared = Shared::new();
    let agent = Agent::start(&shared);
    shared.pods.send_replace(vec![pod(1)]);
    let mut proxy = start(&shared, &settings());
    assert!(matches!(proxy.change().await, Change::Take { .. }));
    let dns = shared.listeners.lock().unwrap()[&pod(1).key].dns.clone();
    (agent, proxy, UdpSocket::bind("127.0.0.1:0").await.unwrap(), dns)
}

fn meant_for(proxy: &Proxy, server: Option<SocketAddr>) {
    *proxy.memory.dns.lock().unwrap() = server;
}

#[tokio::test]
async fn queries_go_to_their_server_and_answers_come_back_by_the_same_socket() {
    let (_agent, proxy, client, dns) = world().await;
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    meant_for(&proxy, Some(server.local_addr().unwrap()));
    let mut ports = std::collections::BTreeSet::new();
    for (number, socket) in (0_u8..).zip(&dns) {
        let query = [7, number, 1, 2, 3];
        client.send_to(&query, socket).await.unwrap();
        let mut buffer = [0; 100];
        let (length, from) = server.recv_from(&mut buffer).await.unwrap();
        assert_eq!(buffer[..length], query, "unchanged");
        ports.insert(from.port());
        // Another id is an answer to something else; a stranger's never arrives.
        let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        stranger.send_to(&[7, number, 66], from).await.unwrap();
        server.send_to(&[8, number, 66], from).await.unwrap();
        server.send_to(&[7, number, 9], from).await.unwrap();
        let (length, from) = client.recv_from(&mut buffer).await.unwrap();
        assert_eq!((&buffer[..length], from), (&[7, number, 9][..], *socket));
    }
    assert_eq!(ports.len(), dns.len(), "each query from a port of its own");
    eventually("counted", || proxy.report.tallies().dns.answered.get() == 4).await;
}

#[tokio::test]
async fn long_answers_and_empty_queries_pass() {
    let (_agent, proxy, client, dns) = world().await;
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    meant_for(&proxy, Some(server.local_addr().unwrap()));
    let mut buffer = vec![0; 70_000];
    for (query, answer) in [(vec![1, 2], vec![1; 1]), (vec![1, 2], [1, 2].repeat(32_000)), (vec![], vec![5])]
    {
        client.send_to(&query, dns[0]).await.unwrap();
        let (_, from) = server.recv_from(&mut buffer).await.unwrap();
        // Too short to have the id: not an answer.
        server.send_to(&answer, from).await.unwrap();
        if answer.len() < query.len() {
            continue;
        }
        let (length, _) = client.recv_from(&mut buffer).await.unwrap();
        assert_eq!(buffer[..length], answer);
    }
}

#[tokio::test]
async fn thousands_of_queries_are_bounded() {
    let (_agent, proxy, client, dns) = world().await;
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    meant_for(&proxy, Some(silent.local_addr().unwrap()));
    let tally = &proxy.report.tallies().dns;
    let mut sent = 0;
    for n in 0..3000_u16 {
        client.send_to(&n.to_be_bytes(), dns[usize::from(n) % 4]).await.unwrap();
        sent += 1;
        // The kernel's own queue holds some hundred.
        if n % 100 == 99 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    eventually("most are dropped", || tally.too_many.get() > 1000).await;
    // Sixteen at a time, for half a second each: what came through is few.
    let taken = sent - tally.too_many.get();
    assert!(taken < 2000, "{taken} of {sent} were taken");
    eventually("those under way end", || tally.timeout.get() >= 16).await;
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    meant_for(&proxy, Some(server.local_addr().unwrap()));
    // Afterwards it goes on as before.
    let mut buffer = [0; 10];
    loop {
        client.send_to(&[9, 9], dns[0]).await.unwrap();
        if tokio::time::timeout(Duration::from_millis(200), server.recv_from(&mut buffer)).await.is_ok() {
            break;
        }
    }
}

#[tokio::test]
async fn a_query_for_nobody_knows_whom_is_dropped() {
    let (_agent, proxy, client, dns) = world().await;
    meant_for(&proxy, None);
    client.send_to(&[1, 2, 3], dns[0]).await.unwrap();
    eventually("it is counted", || proxy.report.tallies().dns.no_server.get() == 1).await;
    // A server that is not there: the network says so.
    let gone = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    meant_for(&proxy, Some(gone));
    client.send_to(&[1, 2, 3], dns[0]).await.unwrap();
    eventually("it is counted", || proxy.report.tallies().dns.failed.get() == 1).await;
}
