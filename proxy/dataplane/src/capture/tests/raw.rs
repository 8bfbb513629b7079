//! Raw bytes: in, out, and how they end.

use socket2::SockRef;

use super::{apps::App, *};
use crate::testing::BASE;

/// A way for raw bytes: out of a pod, or into one.
#[derive(Debug, Clone, Copy)]
enum Route {
    Out,
    Between,
    In,
}

const ROUTES: [Route; 3] = [Route::Out, Route::Between, Route::In];

impl Route {
    fn ip(self, node: &Node) -> IpAddr {
        match self {
            Self::Out => node.address(50),
            Self::Between | Self::In => node.server.ip,
        }
    }

    async fn connect(self, node: &Node, app: &App) -> TcpStream {
        match self {
            Self::Out | Self::Between => node.connect(&node.sleep, app.address).await,
            Self::In => {
                let entrance = node.entrance(app.address).await;
                node.call(9, entrance).await
            }
        }
    }
}

#[tokio::test]
async fn half_close_goes_through_both_ways() {
    for route in ROUTES {
        let node = Node::new(&[BASE]).await;
        let app = App::serve(route.ip(&node), |_, mut stream| async move {
            let (asked, _) = rest(&mut stream).await;
            stream.write_all(&asked).await.unwrap();
            stream.write_all(b" and goodbye").await.unwrap();
        })
        .await;
        let mut client = route.connect(&node, &app).await;
        client.write_all(b"\x80hello").await.unwrap();
        client.shutdown().await.unwrap();
        let (said, ended) = rest(&mut client).await;
        assert!(ended.is_ok(), "{route:?}");
        assert_eq!(said, b"\x80hello and goodbye", "{route:?}");
        let story = node.stories(1).await.remove(0);
        assert_eq!((story.request_bytes, story.response_bytes), (6, 18), "{route:?}");
        assert_eq!((story.protocol, story.details.as_str()), (observe::record::Protocol::Tcp, "closed"));
        let both_sides = matches!(route, Route::Between);
        assert_eq!((story.opened, story.both_sides), (true, both_sides), "{route:?}");
    }
}

#[tokio::test]
async fn the_servers_half_close_leaves_the_client_its_say() {
    for route in ROUTES {
        let node = Node::new(&[BASE]).await;
        let (heard, mut told) = mpsc::channel(1);
        let app = App::serve(route.ip(&node), move |_, mut stream| {
            let heard = heard.clone();
            async move {
                stream.write_all(b"banner").await.unwrap();
                stream.shutdown().await.unwrap();
                heard.send(rest(&mut stream).await.0).await.unwrap();
            }
        })
        .await;
        let mut client = route.connect(&node, &app).await;
        assert_eq!(rest(&mut client).await.0, b"banner", "{route:?}: the server speaks first");
        client.write_all(b"\x80late").await.unwrap();
        drop(client);
        assert_eq!(in_time(told.recv()).await.unwrap(), b"\x80late", "{route:?}");
    }
}

#[tokio::test]
async fn a_reset_goes_through_as_a_reset_both_ways() {
    for route in ROUTES {
        let node = Node::new(&[BASE]).await;
        let (heard, mut told) = mpsc::channel(1);
        let app = App::serve(route.ip(&node), move |number, mut stream| {
            let heard = heard.clone();
            async move {
                let mut byte = [0; 1];
                stream.read_exact(&mut byte).await.unwrap();
                stream.write_all(&byte).await.unwrap();
                if number == 0 {
                    stream.set_zero_linger().unwrap();
                    return;
                }
                let error = rest(&mut stream).await.1.unwrap_err();
                heard.send(error.kind()).await.unwrap();
            }
        })
        .await;
        let mut client = route.connect(&node, &app).await;
        client.write_all(b"\x80").await.unwrap();
        let (said, ended) = rest(&mut client).await;
        assert!(said.len() <= 1);
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset, "{route:?}: the server's");
        let mut client = route.connect(&node, &app).await;
        client.write_all(b"\x80").await.unwrap();
        in_time(client.read_exact(&mut [0; 1])).await.unwrap();
        client.set_zero_linger().unwrap();
        drop(client);
        let kind = in_time(told.recv()).await.unwrap();
        assert_eq!(kind, io::ErrorKind::ConnectionReset, "{route:?}: the client's");
    }
}

#[tokio::test]
async fn urgent_data_stay_in_line() {
    for route in ROUTES {
        let node = Node::new(&[BASE]).await;
        let app = App::serve(route.ip(&node), |_, mut stream| async move {
            SockRef::from(&stream).set_out_of_band_inline(true).unwrap();
            for _ in 0..4 {
                let byte = stream.read_u8().await.unwrap();
                stream.write_u8(byte).await.unwrap();
            }
            let _ = rest(&mut stream).await;
        })
        .await;
        let mut client = route.connect(&node, &app).await;
        client.write_all(b"\x80a").await.unwrap();
        SockRef::from(&client).send_out_of_band(b"!").unwrap();
        client.write_all(b"b").await.unwrap();
        // The mark cuts reads short, and more is behind it: nothing else comes that would wake us.
        let mut back = [0; 4];
        in_time(client.read_exact(&mut back)).await.unwrap();
        assert_eq!(&back, b"\x80a!b", "{route:?}");
    }
}

#[tokio::test]
async fn many_bytes_arrive_whole_and_in_order() {
    const SIZE: usize = 3_000_001;
    let pattern: Vec<u8> = (0..SIZE).map(|n| (n % 251) as u8 | 0x80).collect();
    for route in ROUTES {
        let node = Node::new(&[BASE]).await;
        let app = App::echo(route.ip(&node)).await;
        let mut client = route.connect(&node, &app).await;
        let (mut read, mut write) = client.split();
        let (mut back, sent) = (Vec::new(), &pattern);
        let both = async {
            tokio::join!(
                async {
                    for chunk in sent.chunks(70_001) {
                        write.write_all(chunk).await.unwrap();
                    }
                    write.shutdown().await.unwrap();
                },
                async { read.read_to_end(&mut back).await.unwrap() }
            )
        };
        in_time(both).await;
        assert!(back == pattern, "{route:?}");
    }
}

#[tokio::test]
async fn a_reader_that_does_not_read_holds_up_the_writer() {
    let node = Node::new(&[BASE]).await;
    let app = App::serve(node.address(50), |_, stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let mut client = node.connect(&node.sleep, app.address).await;
    let chunk = vec![0x80; 1 << 20];
    let mut written: usize = 0;
    // What the kernel's buffers take, and ours, is finite; without back-pressure nothing would be.
    while written < 1 << 30 {
        match tokio::time::timeout(Duration::from_secs(2), client.write_all(&chunk)).await {
            Ok(done) => done.unwrap(),
            Err(_) => return,
        }
        written += chunk.len();
    }
    panic!("a gibibyte went nowhere");
}

#[tokio::test]
async fn nobody_there_is_a_reset() {
    for route in ROUTES {
        let node = Node::new(&[BASE]).await;
        let address = {
            let gone = TcpListener::bind((route.ip(&node), 0)).await.unwrap();
            gone.local_addr().unwrap()
        };
        let app = App { address, connections: Arc::default() };
        let mut client = route.connect(&node, &app).await;
        let _ = client.write_all(b"\x80").await;
        assert_reset(client).await;
        assert_eq!(node.stories(1).await[0].flags, "UF", "{route:?}");
    }
}

#[tokio::test]
async fn a_change_of_policy_ends_raw_connections_that_it_forbids() {
    let deny = r#"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-posts, namespace: datamesh}
spec: {action: DENY, rules: [{to: [{operation: {methods: [POST]}}]}]}
"#;
    for route in [Route::Between, Route::In] {
        let node = Node::new(&[BASE]).await;
        let app = App::echo(route.ip(&node)).await;
        let mut client = route.connect(&node, &app).await;
        let mut byte = [0; 1];
        client.write_all(b"\x80").await.unwrap();
        in_time(client.read_exact(&mut byte)).await.unwrap();
        node.world.publish(&[BASE], 2);
        client.write_all(b"\x81").await.unwrap();
        in_time(client.read_exact(&mut byte)).await.unwrap();
        node.world.publish(&[BASE, deny], 3);
        assert_reset(client).await;
        assert_eq!(node.stories(1).await[0].details, "policy_changed");
    }
}
