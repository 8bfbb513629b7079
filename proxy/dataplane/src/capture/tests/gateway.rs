//! Listeners beside the capture: what they send on goes straight into captured pods.

use mesh::routing::GatewayKey;

use super::{apps::App, *};
use crate::{
    accept::{Entry, Listener},
    testing::{BASE, GATEWAY},
};

fn listener(name: &str, entry: Entry) -> Bound {
    let address = (Ipv4Addr::LOCALHOST, 0).into();
    Listener { name: name.to_owned(), address, entry, tls: None }.bind().unwrap()
}

/// Waits until the pods are captured: how many sockets inside the server's were used by then.
async fn settled(node: &Node, port: u16) -> usize {
    let mut client = node.connect(&node.sleep, SocketAddr::new(node.server.ip, port)).await;
    ask(&mut client, &get("/", "")).await;
    node.sockets(&node.server, Use::Ingress)
}

#[tokio::test]
async fn what_a_gateway_or_a_listener_sends_on_goes_straight_inside() {
    let app = App::http([0, 0, 0, 0].into()).await;
    let port = app.address.port();
    let labels = [("istio".to_owned(), "ingressgateway".to_owned())].into();
    let gateway = listener("gateway", Entry::Gateway(GatewayKey { labels, port: 80 }));
    let workload = listener("workload", Entry::Workload { name: SERVER.parse().unwrap(), port });
    let (gateway_address, workload_address) = (gateway.local_addr(), workload.local_addr());
    let base = BASE.replace("8080", &port.to_string());
    let manifests: &[&str] = &[&base, GATEWAY];
    let node = Node::build(Build { manifests, listeners: vec![gateway, workload], ..Build::default() }).await;
    let before = settled(&node, port).await;
    for (address, path) in
        [(gateway_address, "/api/x"), (workload_address, "/x"), (gateway_address, "/api/x")]
    {
        let mut client = TcpStream::connect(address).await.unwrap();
        let (status, body) = ask(&mut client, &get(path, "")).await;
        assert_eq!(status, 200);
        assert!(body.starts_with("127.0.0.6 ") && body.ends_with(" GET /x HTTP/1.1"), "{body}");
    }
    // Each of the stories names the pod's own address.
    for story in &node.stories(4).await[1..] {
        assert_eq!(story.upstream, Some(SocketAddr::new(node.server.ip, port)));
    }
    assert_eq!(node.sockets(&node.server, Use::Ingress), before + 1, "and the connection is used again");
}

#[tokio::test]
async fn where_the_settings_lead_elsewhere_they_win() {
    let app = App::http((Ipv4Addr::LOCALHOST).into()).await;
    let workload = listener("workload", Entry::Workload { name: SERVER.parse().unwrap(), port: 8080 });
    let address = workload.local_addr();
    let upstream = Some((8080, app.address));
    let node =
        Node::build(Build { manifests: &[BASE], listeners: vec![workload], upstream, ..Build::default() })
            .await;
    let before = settled(&node, app.address.port()).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    assert_eq!(ask(&mut client, &get("/x", "")).await.0, 200);
    assert_eq!((app.count(), node.sockets(&node.server, Use::Ingress)), (1, before));
}
