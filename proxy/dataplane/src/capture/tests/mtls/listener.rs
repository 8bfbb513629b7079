//! The same at a listener of the settings (`tls: {mesh: true}`): no capture, and raw bytes all the same.

use super::*;
use crate::{
    accept::{Entry, Listener},
    secure::{Speaking, Whose},
    testing::World,
};

const ONLY_SLEEP: &str = r#"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: only-sleep, namespace: datamesh}
spec: {rules: [{from: [{source: {principals: [cluster.local/ns/datamesh/sa/sleep]}}]}]}
"#;

/// A proxy with one listener before one application.
struct Standing {
    peers: Peers,
    stories: Arc<Stories>,
    address: SocketAddr,
    stop: CancellationToken,
    running: JoinHandle<DrainReport>,
}

impl Standing {
    async fn new(manifests: &[&str], app: &App) -> Self {
        Self::before(manifests, |_| app.address).await
    }

    /// Before whatever `upstream` says, which is told the listener's own address.
    async fn before(manifests: &[&str], upstream: impl FnOnce(SocketAddr) -> SocketAddr) -> Self {
        let listener = Listener {
            name: "db".to_owned(),
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            entry: Entry::Workload { name: SERVER.parse().unwrap(), port: 8080 },
            tls: None,
        };
        let bound = listener.bind().unwrap();
        let upstream = upstream(bound.local_addr());
        let world = World::with(manifests, |mesh, _| {
            mesh.workloads[0].fhir = None;
            mesh.workloads[0].upstream = [(8080, upstream)].into();
        });
        let peers = Peers::new(&["default"], world.mesh.subscribe());
        let own = peers.of(SERVER).await;
        assert!(Arc::ptr_eq(&own, &peers.certificates.of(Whose::Workload(SERVER.parse().unwrap()))));
        let bound = bound.with_mesh(own, Some(Speaking::Sidecar));
        let (address, stop) = (bound.local_addr(), CancellationToken::new());
        let stories = Arc::new(Stories::default());
        let recorder = Arc::clone(&stories) as Arc<dyn Recorder>;
        let proxy = Proxy::new(Arc::clone(&world.engine), recorder, Arc::new(Limits::default()));
        let stopping = stop.clone();
        let running = tokio::spawn(async move {
            let _world = world;
            proxy.run(vec![bound], None, stopping).await
        });
        Self { peers, stories, address, stop, running }
    }

    async fn call(&self) -> TcpStream {
        in_time(TcpStream::connect(self.address)).await.unwrap()
    }

    async fn secured(&self, account: &str, alpn: &[&[u8]]) -> TlsStream<TcpStream> {
        let leaf = Some(self.peers.leaf(&id(account)));
        Client { leaf, alpn, ..Client::default() }.shake(&self.peers, self.call().await).await.unwrap()
    }

    async fn story(&self) -> Record {
        in_time(async {
            loop {
                if let Some(story) = self.stories.0.lock().unwrap().pop() {
                    return story;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
    }
}

fn loopback() -> IpAddr {
    IpAddr::V4(Ipv4Addr::LOCALHOST)
}

#[tokio::test]
async fn raw_bytes_pass_by_what_policies_say_of_connections() {
    let app = greeter(loopback()).await;
    let standing = Standing::new(&[BASE, STRICT, ONLY_SLEEP], &app).await;
    let mut client = standing.secured("sleep", BYTES).await;
    client.write_all(b"\x80mine").await.unwrap();
    client.shutdown().await.unwrap();
    let (said, ended) = last(&mut client).await;
    assert_eq!((&said[..], ended.is_ok()), (&b"\x0agreetings\x80mine"[..], true));
    let story = standing.story().await;
    assert_eq!(story.source.principal.as_deref(), Some(&*id("sleep")));
    assert_eq!((story.mutual_tls, story.upstream), (true, Some(app.address)));

    let before = app.count();
    let mut denied = standing.secured("other", BYTES).await;
    let _ = denied.write_all(b"\x80mine").await;
    let (said, ended) = last(&mut denied).await;
    assert!(said.is_empty() && ended.is_err());
    assert_eq!(standing.story().await.refused, Some("policy_denied"));

    let mut plain = standing.call().await;
    let _ = plain.write_all(b"\x80mine").await;
    assert_reset(plain).await;
    assert_eq!(standing.story().await.refused, Some("strict_plaintext"));
    assert_eq!(app.count(), before);
    standing.stop.cancel();
    assert_eq!(in_time(standing.running).await.unwrap().cut, 0);
}

#[tokio::test]
async fn requests_are_requests_still() {
    let app = mirror(loopback()).await;
    let standing = Standing::new(&[BASE], &app).await;
    for alpn in [HTTP1, BYTES, &[]] {
        let mut client = standing.secured("sleep", alpn).await;
        let (status, head) = request(&mut client, &get("/", "")).await;
        assert_eq!((status, head.contains(&id("sleep"))), (200, true), "{head}");
    }
    let mut plain = standing.call().await;
    assert_eq!(request(&mut plain, &get("/", "")).await.0, 200);
}

#[tokio::test]
async fn a_listener_does_not_call_itself() {
    let standing = Standing::before(&[BASE], |own| own).await;
    let mut client = standing.call().await;
    client.write_all(b"\x80round and round").await.unwrap();
    assert_reset(client).await;
    assert_eq!(standing.story().await.flags, "UF");
    standing.stop.cancel();
    assert_eq!(in_time(standing.running).await.unwrap().connections, 0);
}
