//! ClientHellos that come slowly, late, in pieces, or broken.

use super::*;

const ONLY_SLEEP: &str = r#"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: only-sleep, namespace: datamesh}
spec: {rules: [{from: [{source: {principals: [cluster.local/ns/datamesh/sa/sleep]}}]}]}
"#;

/// Writes one byte at a time.
struct Drip(TcpStream);

impl AsyncRead for Drip {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Drip {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, &bytes[..bytes.len().min(1)])
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn one_byte_at_a_time_is_the_meshs_tls_all_the_same() {
    for manifests in [&[BASE, STRICT][..], &[BASE]] {
        let stage = Stage::new(manifests).await;
        let app = mirror(stage.node.server.ip).await;
        let client = Client { leaf: Some(stage.sleep()), ..Client::default() };
        let mut stream = client.shake(stage.peers(), Drip(stage.call(&app).await)).await.unwrap();
        assert_eq!(request(&mut stream, &get("/", "")).await.0, 200);
    }
}

#[tokio::test]
async fn a_slow_hello_is_never_passed_on() {
    let limits = Limits { handshake_timeout_ms: 300, ..Limits::default() };
    // However slow the machine is, the first byte is there before silence is.
    let settings = CaptureSettings { detect_timeout_ms: 60_000, ..CaptureSettings::default() };
    let stage = Stage::build(Build { manifests: &[BASE], limits, settings, ..Build::default() }).await;
    let (echo, greeter) = (App::echo(stage.node.server.ip).await, greeter(stage.node.server.ip).await);
    let mesh = Client::default().hello(stage.peers());
    let own = Client { alpn: &[b"h2"], ..Client::default() }.hello(stage.peers());
    let mut told = 0;
    for (hello, length) in [(&mesh, 1), (&mesh, 2), (&mesh, 60), (&own, 60), (&mesh, mesh.len() - 1)] {
        for app in [&echo, &greeter] {
            let mut client = stage.call(app).await;
            client.write_all(&hello[..length]).await.unwrap();
            let (bytes, ended) = rest(&mut client).await;
            assert_eq!((bytes, ended.unwrap_err().kind()), (Vec::new(), io::ErrorKind::ConnectionReset));
            told += 1;
            let story = stage.node.stories(told).await.remove(told - 1);
            assert_eq!(story.refused, Some("handshake_timeout"), "{length}");
        }
    }
    assert_eq!((echo.count(), greeter.count()), (0, 0));
}

#[tokio::test]
async fn under_strict_a_slow_handshake_is_reset() {
    let limits = Limits { handshake_timeout_ms: 1_500, ..Limits::default() };
    let stage = Stage::build(Build { manifests: &[BASE, STRICT], limits, ..Build::default() }).await;
    let app = App::echo(stage.node.server.ip).await;
    let hello = Client::default().hello(stage.peers());
    for (index, length) in [1, 60, hello.len() - 1].into_iter().enumerate() {
        let mut client = stage.call(&app).await;
        client.write_all(&hello[..length]).await.unwrap();
        assert_reset(client).await;
        let story = stage.node.stories(index + 1).await.remove(index);
        assert_eq!(story.refused, Some("handshake_timeout"));
    }
    // Whoever has said hello and then nothing.
    let mut client = stage.call(&app).await;
    client.write_all(&hello).await.unwrap();
    let (answer, ended) = rest(&mut client).await;
    assert!(answer.starts_with(&[22, 3]) && ended.is_err());
    assert_eq!(app.count(), 0);
}

#[tokio::test]
async fn a_broken_hello_is_never_passed_on() {
    let stage = Stage::new(&[BASE]).await;
    let app = App::echo(stage.node.server.ip).await;
    let hello = Client::default().hello(stage.peers());
    let mut twice = hello.clone();
    // A length that is not the extensions'.
    let last = twice.len() - 1;
    twice.truncate(last);
    twice[4] -= 1;
    let broken: [&[u8]; 5] = [
        &[22, 3, 1, 0, 0],
        &[22, 3, 1, 0, 4, 2, 0, 0, 0],
        &[22, 3, 3, 0, 5, 1, 0, 0, 1, 9],
        &twice,
        b"\x16\x03GET /",
    ];
    for (index, bytes) in broken.into_iter().enumerate() {
        let mut client = stage.call(&app).await;
        client.write_all(bytes).await.unwrap();
        let _ = client.shutdown().await;
        assert_reset(client).await;
        let story = stage.node.stories(index + 1).await.remove(index);
        assert_eq!(story.refused, Some("tls_malformed"), "{bytes:?}");
    }
    // Its client closed in the middle of it.
    let mut client = stage.call(&app).await;
    client.write_all(&hello[..50]).await.unwrap();
    client.shutdown().await.unwrap();
    assert_reset(client).await;
    assert_eq!(app.count(), 0);
}

#[tokio::test]
async fn a_hello_that_comes_late_is_heard_where_nobody_has_spoken() {
    let stage = Stage::new(&[BASE]).await;
    let received = Arc::new(Mutex::new(Vec::new()));
    let app = {
        let received = Arc::clone(&received);
        App::serve(stage.node.server.ip, move |number, mut stream| {
            let received = Arc::clone(&received);
            async move {
                let (bytes, _) = rest(&mut stream).await;
                received.lock().unwrap().push((number, bytes));
            }
        })
        .await
    };
    let tcp = stage.call(&app).await;
    // The server has been connected to: both are silent.
    in_time(async {
        while app.count() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let client = Client { leaf: Some(stage.sleep()), alpn: BYTES, ..Client::default() };
    let mut stream = client.shake(stage.peers(), tcp).await.unwrap();
    stream.write_all(b"\x80mine").await.unwrap();
    stream.shutdown().await.unwrap();
    let _ = last(&mut stream).await;
    let story = stage.node.stories(1).await.remove(0);
    assert_eq!(story.source.principal.as_deref(), Some(&*id("sleep")));
    let mut received = received.lock().unwrap().clone();
    received.sort();
    assert_eq!(received, [(0, Vec::new()), (1, b"\x80mine".to_vec())], "who called is known");
}

#[tokio::test]
async fn a_late_hello_is_heard_where_nobody_without_a_name_may_speak() {
    let stage = Stage::new(&[BASE, ONLY_SLEEP]).await;
    let app = greeter(stage.node.server.ip).await;
    let tcp = stage.call(&app).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(app.count(), 0, "whoever says nothing is nobody");
    let client = Client { leaf: Some(stage.sleep()), alpn: BYTES, ..Client::default() };
    let mut stream = client.shake(stage.peers(), tcp).await.unwrap();
    let mut greeting = [0; 10];
    in_time(stream.read_exact(&mut greeting)).await.unwrap();
    assert_eq!(&greeting, b"\x0agreetings");
}

#[tokio::test]
async fn silent_clients_are_let_go() {
    let limits = Limits { handshake_timeout_ms: 200, ..Limits::default() };
    let stage = Stage::build(Build { manifests: &[BASE, STRICT], limits, ..Build::default() }).await;
    let app = App::echo(stage.node.server.ip).await;
    assert_reset(stage.call(&app).await).await;
    // Closed as it was opened: a probe.
    let mut client = stage.call(&app).await;
    client.shutdown().await.unwrap();
    assert!(rest(&mut client).await.0.is_empty());
    assert_eq!(app.count(), 0);
    assert!(stage.node.stories(0).await.is_empty(), "no news");
}
