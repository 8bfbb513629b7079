#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{net::IpAddr, path::PathBuf};

use super::*;
use crate::agent::protocol::{Client, ConnectError, MAX_PODS, News, PodKey, SocketKind};

/// A socket with connections, and a steward that welcomes and refuses everything.
struct Scene {
    folder: tempfile::TempDir,
    feeds: Feeds,
    stop: CancellationToken,
}

fn me() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let feeds = Feeds { pods: watch::channel(None).0, node: watch::channel(Arc::default()).0 };
        let scene = Self { folder, feeds: feeds.clone(), stop: CancellationToken::new() };
        let (user, group) = me();
        let seat = Seat::open(&scene.path(), user, group).unwrap();
        let (orders, received) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut superseded = Vec::new();
            while let Ok(order) = received.recv() {
                let refused = || Reply::Refused { reason: Refusal::UnknownPod, detail: "none".to_owned() };
                // One who has gone needs no answer.
                let _ = match order {
                    Order::Join { answer, superseded: told, .. } => {
                        superseded.push(told);
                        let welcome = Welcome { version: VERSION, node_addresses: Vec::new() };
                        answer.send(Reply::Welcome(welcome).into()).map_err(drop)
                    }
                    Order::Ask { answer, .. } => answer.send(vec![refused().into()]).map_err(drop),
                    _ => Ok(()),
                };
            }
        });
        tokio::spawn(receive(seat, orders, feeds, scene.stop.clone()));
        scene
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("agent.sock")
    }

    async fn connect(&self, hello: Hello) -> Result<Client, ConnectError> {
        Client::connect_to(&self.path(), hello, me().0).await
    }

    async fn proxy(&self) -> Client {
        self.connect(hello()).await.unwrap()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn hello() -> Hello {
    Hello { version: VERSION, role: Role::Proxy, started: 1, serving: Vec::new() }
}

fn info(slot: u32) -> PodInfo {
    PodInfo {
        key: PodKey { slot, netns: u64::MAX - u64::from(slot) },
        workload: format!("{}/w{slot}", "n".repeat(500)),
        uid: Some("0b1c2d3e-4f50-6172-8394-a5b6c7d8e9f0".to_owned()),
        addresses: vec!["fd00:1111:2222:3333:4444:5555:6666:7777".parse().unwrap(); 8],
        transparent: true,
        accelerated: false,
        enrolment: u64::MAX,
    }
}

#[tokio::test]
async fn a_full_node_is_told_whole_and_changes_follow() {
    let scene = Scene::new();
    let mut client = scene.proxy().await;
    let all: Vec<PodInfo> = (0..u32::try_from(MAX_PODS).unwrap()).map(info).collect();
    scene.feeds.pods.send_replace(Some(Arc::new(all.clone())));
    let (None, News::Pods(pods)) = client.receiver.next().await.unwrap() else { panic!("no pods") };
    assert_eq!(pods, all);
    scene.feeds.pods.send_replace(Some(Arc::default()));
    let (None, News::Pods(pods)) = client.receiver.next().await.unwrap() else { panic!("no pods") };
    assert!(pods.is_empty());
    let address: IpAddr = "10.0.0.1".parse().unwrap();
    scene.feeds.node.send_replace(Arc::new(vec![address]));
    let (None, News::Node(addresses)) = client.receiver.next().await.unwrap() else { panic!("no node") };
    assert_eq!(addresses, [address]);
    // One who comes later is told what is there.
    let mut late = scene.proxy().await;
    assert!(matches!(late.receiver.next().await.unwrap(), (None, News::Pods(_))));
}

#[tokio::test]
async fn who_breaks_the_rules_is_closed_and_nobody_else() {
    let scene = Scene::new();
    let mut good = scene.proxy().await;
    let mut twice = scene.proxy().await;
    twice.sender.ask(1, Ask::Hello(hello())).await.unwrap();
    // Out of turn is refused by the steward, nonsense ends the connection.
    assert!(matches!(twice.receiver.next().await.unwrap(), (Some(1), News::Refused(..))));
    let error = scene.connect(Hello { version: VERSION + 1, ..hello() }).await.unwrap_err();
    assert!(matches!(error, ConnectError::Refused(Refusal::Version, _)), "{error}");
    let link = Link::connect(&scene.path()).unwrap();
    link.send(&Request { id: 4, ask: Ask::Status {} }, &[]).await.unwrap();
    let first = link.receive::<Message>().await.unwrap().message;
    assert!(matches!(first, Message { to: Some(4), say: Reply::Refused { reason: Refusal::NotNow, .. } }));
    assert!(matches!(link.receive::<Message>().await, Err(LinkError::Closed)));
    let link = Link::connect(&scene.path()).unwrap();
    link.send(&"nonsense", &[]).await.unwrap();
    assert!(matches!(link.receive::<Message>().await, Err(LinkError::Closed)));

    let pod = PodKey { slot: 1, netns: 2 };
    good.sender.ask(7, Ask::Stock { pod, kind: SocketKind::Dns4, count: 1 }).await.unwrap();
    let answer = good.receiver.next().await.unwrap();
    assert!(matches!(answer, (Some(7), News::Refused(Refusal::UnknownPod, _))), "{answer:?}");
}

#[tokio::test]
async fn one_who_never_reads_is_closed_and_keeps_nobody_waiting() {
    let scene = Scene::new();
    let lazy = scene.proxy().await;
    let mut good = scene.proxy().await;
    let all: Arc<Vec<PodInfo>> = Arc::new((0..1000).map(info).collect());
    for _ in 0..3 {
        scene.feeds.pods.send_replace(Some(Arc::clone(&all)));
        let (None, News::Pods(pods)) = good.receiver.next().await.unwrap() else { panic!("no pods") };
        assert_eq!(pods.len(), 1000);
    }
    // Its socket is full, and stays so.
    let gone = async {
        let status = Ask::Status {};
        while lazy.sender.ask(1, status.clone()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone).await.expect("it was kept");
}

#[test]
fn a_part_holds_what_fits_and_at_least_one() {
    assert_eq!(fitting(&[]), 0);
    let long = PodInfo { workload: "x".repeat(PART), ..info(0) };
    assert_eq!(fitting(&[long.clone(), long]), 1);
    let some: Vec<PodInfo> = (0..1000).map(info).collect();
    let count = fitting(&some);
    assert!(count > 10 && count < 1000, "{count}");
}
