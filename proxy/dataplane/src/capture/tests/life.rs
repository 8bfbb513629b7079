//! Pods come and go.

use std::sync::atomic::AtomicUsize;

use super::{apps::App, *};
use crate::testing::BASE;

#[tokio::test]
async fn a_released_pods_connections_drain_without_one_failure() {
    let node = Arc::new(Node::new(&[BASE]).await);
    let app = Arc::new(App::http(node.server.ip).await);
    let (asked, failed, stop) =
        (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), CancellationToken::new());
    let mut clients = Vec::new();
    for _ in 0..8 {
        let (node, app, asked, failed, stop) =
            (Arc::clone(&node), Arc::clone(&app), Arc::clone(&asked), Arc::clone(&failed), stop.clone());
        clients.push(tokio::spawn(async move {
            while !stop.is_cancelled() {
                let mut client = node.connect(&node.sleep, app.address).await;
                loop {
                    let request = get("/", "");
                    in_time(client.write_all(request.as_bytes())).await.unwrap();
                    let mut bytes = Vec::new();
                    while !bytes.ends_with(b" HTTP/1.1") {
                        match in_time(client.read_buf(&mut bytes)).await {
                            Ok(length) if length > 0 => {}
                            ended => {
                                failed.fetch_add(1, Ordering::Relaxed);
                                panic!("{ended:?} after {:?}", String::from_utf8_lossy(&bytes));
                            }
                        }
                    }
                    asked.fetch_add(1, Ordering::Relaxed);
                    let head = String::from_utf8(bytes).unwrap().to_ascii_lowercase();
                    if head.contains("connection: close") || stop.is_cancelled() {
                        break;
                    }
                }
            }
        }));
    }
    let more_than = |count: usize| {
        let asked = Arc::clone(&asked);
        async move {
            while asked.load(Ordering::Relaxed) <= count {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    };
    in_time(more_than(50)).await;
    // From now on its address is one as any other: reached from the calling pod as it is.
    node.changes.send(Change::Release { id: node.server.pod.id }).await.unwrap();
    let then = asked.load(Ordering::Relaxed);
    in_time(more_than(then + 50)).await;
    stop.cancel();
    for client in clients {
        in_time(client).await.unwrap();
    }
    assert_eq!(failed.load(Ordering::Relaxed), 0);
    assert!(node.sockets(&node.sleep, Use::Egress) > 0, "the released pod is elsewhere now");
}

#[tokio::test]
async fn a_released_pods_queue_is_served() {
    let node = Node::new(&[BASE]).await;
    let app = App::http(node.address(50)).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(node.connect(&node.sleep, app.address).await);
    }
    node.changes.send(Change::Release { id: node.sleep.pod.id }).await.unwrap();
    for mut client in clients {
        assert_eq!(ask(&mut client, &get("/", "")).await.0, 200);
    }
    let closed = async {
        while let Ok(stream) = TcpStream::connect(node.sleep.outbound).await {
            drop(stream);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    in_time(closed).await;
}

#[tokio::test]
async fn raw_connections_of_a_released_pod_go_on_until_the_drains_limit() {
    let limits = Limits { drain_timeout_ms: 1000, ..Limits::default() };
    let node = Node::build(Build { manifests: &[BASE], limits, ..Build::default() }).await;
    let app = App::echo(node.server.ip).await;
    let mut client = node.connect(&node.sleep, app.address).await;
    let mut byte = [0; 1];
    client.write_all(b"\x80").await.unwrap();
    in_time(client.read_exact(&mut byte)).await.unwrap();
    node.changes.send(Change::Release { id: node.server.pod.id }).await.unwrap();
    client.write_all(b"\x81").await.unwrap();
    in_time(client.read_exact(&mut byte)).await.unwrap();
    assert_reset(client).await;
    assert_eq!(node.stories(1).await[0].details, "drain_timeout");
}

#[tokio::test]
async fn the_connections_of_a_pod_that_is_gone_end_at_once() {
    for gone in [|node: &Node| node.server.pod.id, |node: &Node| node.sleep.pod.id] {
        let node = Node::new(&[BASE]).await;
        let app = App::echo(node.server.ip).await;
        let mut client = node.connect(&node.sleep, app.address).await;
        client.write_all(b"\x80").await.unwrap();
        in_time(client.read_exact(&mut [0; 1])).await.unwrap();
        node.changes.send(Change::Gone { id: gone(&node) }).await.unwrap();
        assert_reset(client).await;
        assert_eq!(node.stories(1).await[0].details, "drain_timeout");
    }
}

#[tokio::test]
async fn a_released_callers_connections_are_told_to_close() {
    let node = Node::new(&[BASE]).await;
    let app = App::http(node.server.ip).await;
    let mut client = node.connect(&node.sleep, app.address).await;
    assert_eq!(ask(&mut client, &get("/", "")).await.0, 200);
    node.changes.send(Change::Release { id: node.sleep.pod.id }).await.unwrap();
    let closed = async {
        let mut head = String::new();
        while !head.contains("connection: close") {
            client.write_all(get("/", "").as_bytes()).await.unwrap();
            let mut bytes = Vec::new();
            while !bytes.ends_with(b" HTTP/1.1") {
                assert!(client.read_buf(&mut bytes).await.unwrap() > 0);
            }
            head = String::from_utf8(bytes).unwrap();
        }
    };
    in_time(closed).await;
    assert!(rest(&mut client).await.1.is_ok());
}

#[tokio::test]
async fn other_listeners_for_the_same_pod_leave_its_connections_alone() {
    let node = Node::new(&[BASE]).await;
    let app = App::http(node.server.ip).await;
    let mut client = node.connect(&node.sleep, app.address).await;
    assert_eq!(ask(&mut client, &get("/", "")).await.0, 200);
    let again = super::capture(&node.changes, Arc::clone(&node.sleep.pod)).await;
    let mut other = node.connect(&again, app.address).await;
    assert_eq!(ask(&mut other, &get("/", "")).await.0, 200);
    assert_eq!(ask(&mut client, &get("/", "")).await.0, 200);
}

#[tokio::test]
async fn the_proxys_own_drain_waits_for_captured_connections() {
    let node = Node::new(&[BASE]).await;
    let app = App::http(node.server.ip).await;
    let mut client = node.connect(&node.sleep, app.address).await;
    assert_eq!(ask(&mut client, &get("/", "")).await.0, 200);
    let raw = App::echo(node.server.ip).await;
    let mut bytes = node.connect(&node.sleep, raw.address).await;
    bytes.write_all(b"\x80").await.unwrap();
    in_time(bytes.read_exact(&mut [0; 1])).await.unwrap();
    let ended = tokio::spawn(node.end());
    client.write_all(get("/last", "").as_bytes()).await.unwrap();
    assert_eq!(answer(&mut client).await.0, 200);
    bytes.write_all(b"\x81").await.unwrap();
    in_time(bytes.read_exact(&mut [0; 1])).await.unwrap();
    bytes.shutdown().await.unwrap();
    drop(client);
    assert_eq!(in_time(ended).await.unwrap().cut, 0);
}
