//! What lasts, under an engine whose mesh changes.

use super::*;
use crate::testing::{BASE, World};

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n";
const EVENTS: &str = "GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n";

/// A policy for the FHIR server.
pub(super) fn policy(action: &str, rules: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {action}, namespace: datamesh}}\n\
         spec: {{selector: {{matchLabels: {{app: fhir-server}}}}, action: {}, rules: {rules}}}\n",
        action.to_uppercase()
    )
}

/// Answers an upgrade and then echoes; answers anything else with an endless body that says `tick` again and again.
pub(super) async fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let head = read_until(&mut socket, "\r\n\r\n").await;
                if head.contains("upgrade: websocket") {
                    let answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello";
                    socket.write_all(answer).await.unwrap();
                    let (mut read, mut write) = socket.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                    return;
                }
                let answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
                socket.write_all(answer).await.unwrap();
                while socket.write_all(b"4\r\ntick\r\n").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            });
        }
    });
    address
}

/// A proxy before a FHIR server, and its mesh.
pub(super) fn before(server: SocketAddr, manifests: &[&str]) -> (House, World) {
    let name = "datamesh/fhir-server".parse().unwrap();
    start(Entry::Workload { name, port: 8080 }, server, manifests)
}

pub(super) fn start(entry: Entry, server: SocketAddr, manifests: &[&str]) -> (House, World) {
    let world = World::with(manifests, |settings, _| {
        settings.workloads[0].upstream.insert(8080, server);
    });
    let address = "127.0.0.1:0".parse().unwrap();
    let bound = Listener { name: "test".to_owned(), address, entry, tls: None }.bind().unwrap();
    let (address, stop, stories) = (bound.local_addr(), CancellationToken::new(), Arc::<Stories>::default());
    let recorder = Arc::clone(&stories) as Arc<dyn Recorder>;
    let proxy = Proxy::new(Arc::clone(&world.engine), recorder, Arc::new(Limits::default()));
    let running = tokio::spawn(proxy.run(vec![bound], None, stop.clone()));
    (House { address, stop, stories, running }, world)
}

async fn says(socket: &mut TcpStream, text: &str) {
    socket.write_all(text.as_bytes()).await.unwrap();
    read_until(socket, text).await;
}

#[tokio::test]
async fn an_upgrade_ends_when_policy_permits_it_no_longer() {
    let (ws, post) = (
        policy("allow", "[{to: [{operation: {paths: [\"/ws\"]}}]}]"),
        policy("deny", "[{to: [{operation: {methods: [POST]}}]}]"),
    );
    let (house, world) = before(server().await, &[BASE, &ws]);
    let mut socket = house.connect().await;
    socket.write_all(UPGRADE.as_bytes()).await.unwrap();
    read_until(&mut socket, "hello").await;
    world.publish(&[BASE, &ws, &post], 2);
    says(&mut socket, "still permitted").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    says(&mut socket, "after it was judged again").await;
    let elsewhere = policy("allow", "[{to: [{operation: {paths: [\"/elsewhere\"]}}]}]");
    world.publish(&[BASE, &elsewhere], 3);
    assert_eq!(read_all(&mut socket).await, "");
    let story = house.stories(1).await.remove(0);
    assert_eq!((story.status, &*story.details), (Some(101), "policy_changed"));
}

#[tokio::test]
async fn a_stream_of_events_ends_when_policy_permits_it_no_longer() {
    let (house, world) = before(server().await, &[BASE]);
    let mut socket = house.connect().await;
    socket.write_all(EVENTS.as_bytes()).await.unwrap();
    read_until(&mut socket, "tick\r\n").await;
    world.publish(&[BASE, &policy("deny", "[{to: [{operation: {paths: [\"/events\"]}}]}]")], 2);
    let rest = read_all(&mut socket).await;
    assert!(!rest.contains("\r\n0\r\n"), "it must not seem whole: {rest}");
    let story = house.stories(1).await.remove(0);
    assert_eq!((story.status, &*story.details), (Some(200), "policy_changed"));
}

#[tokio::test]
async fn plaintext_that_lasts_ends_under_strict() {
    let (house, world) = before(server().await, &[BASE]);
    let strict = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default, namespace: datamesh}\nspec: {mtls: {mode: STRICT}}\n";
    for ask in [UPGRADE, EVENTS] {
        world.publish(&[BASE], 2);
        let mut socket = house.connect().await;
        socket.write_all(ask.as_bytes()).await.unwrap();
        read_until(&mut socket, if ask == UPGRADE { "hello" } else { "tick\r\n" }).await;
        world.publish(&[BASE, strict], 3);
        read_all(&mut socket).await;
    }
    for story in house.stories(2).await {
        assert_eq!(&*story.details, "policy_changed");
    }
}
