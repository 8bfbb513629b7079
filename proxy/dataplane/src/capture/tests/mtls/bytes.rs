//! Raw bytes within the mesh's TLS.

use super::*;

const ONLY_OTHERS: &str = r#"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: only-others, namespace: datamesh}
spec: {rules: [{from: [{source: {principals: [cluster.local/ns/datamesh/sa/other]}}]}]}
"#;

#[tokio::test]
async fn a_server_that_speaks_first_is_heard() {
    for manifests in [&[BASE, STRICT][..], &[BASE]] {
        let stage = Stage::new(manifests).await;
        let app = greeter(stage.node.server.ip).await;
        let mut client = stage.secured(&app, BYTES).await;
        let mut greeting = [0; 10];
        in_time(client.read_exact(&mut greeting)).await.unwrap();
        assert_eq!(&greeting, b"\x0agreetings");
        client.write_all(b"and mine").await.unwrap();
        client.shutdown().await.unwrap();
        let (rest, ended) = last(&mut client).await;
        assert_eq!((&rest[..], ended.is_ok()), (&b"and mine"[..], true));
        let story = stage.node.stories(1).await.remove(0);
        assert_eq!((story.request_bytes, story.response_bytes, &*story.details), (8, 18, "closed"));
        assert!(story.mutual_tls);
    }
}

#[tokio::test]
async fn a_denied_client_of_a_server_that_speaks_first_gets_not_one_byte() {
    let service = r#"
apiVersion: v1
kind: Service
metadata: {name: db, namespace: datamesh}
spec: {selector: {app: fhir-server}, ports: [{name: tcp-db, port: PORT, targetPort: PORT}]}
"#;
    for declares in [true, false] {
        let stage = Stage::new(&[BASE, STRICT, ONLY_OTHERS]).await;
        let app = greeter(stage.node.server.ip).await;
        let service = service.replace("PORT", &app.address.port().to_string());
        if declares {
            stage.node.world.publish(&[BASE, STRICT, ONLY_OTHERS, &service], 2);
        }
        let mut client = stage.secured(&app, BYTES).await;
        if !declares {
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert_eq!(app.count(), 0);
            let _ = client.write_all(b"\x80\x81").await;
        }
        let (bytes, ended) = last(&mut client).await;
        assert_eq!((bytes, ended.is_err()), (Vec::new(), true), "{declares}");
        assert_eq!(app.count(), 0, "nothing was opened for it");
    }
}

#[tokio::test]
async fn half_close_goes_through_both_ways() {
    let stage = Stage::new(&[BASE, STRICT]).await;
    let app = App::serve(stage.node.server.ip, |_, mut stream| async move {
        let (asked, _) = rest(&mut stream).await;
        stream.write_all(&asked).await.unwrap();
        stream.write_all(b" and goodbye").await.unwrap();
    })
    .await;
    let mut client = stage.secured(&app, BYTES).await;
    client.write_all(b"\x80hello").await.unwrap();
    client.shutdown().await.unwrap();
    let (said, ended) = last(&mut client).await;
    assert_eq!((&said[..], ended.is_ok()), (&b"\x80hello and goodbye"[..], true));

    let (told, hears) = tokio::sync::oneshot::channel();
    let told = Mutex::new(Some(told));
    let app = App::serve(stage.node.server.ip, move |_, mut stream| {
        let told = told.lock().unwrap().take();
        async move {
            stream.write_all(b"first").await.unwrap();
            stream.shutdown().await.unwrap();
            let _ = told.unwrap().send(rest(&mut stream).await.0);
        }
    })
    .await;
    let mut client = stage.secured(&app, BYTES).await;
    let (said, ended) = last(&mut client).await;
    assert_eq!((&said[..], ended.is_ok()), (&b"first"[..], true), "the server's end is a clean one");
    client.write_all(b"still here").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(in_time(hears).await.unwrap(), b"still here");
}

#[tokio::test]
async fn an_end_without_farewell_is_a_reset() {
    let stage = Stage::new(&[BASE, STRICT]).await;
    let (told, mut hears) = mpsc::channel(1);
    let app = App::serve(stage.node.server.ip, move |_, mut stream| {
        let told = told.clone();
        async move { told.send(rest(&mut stream).await).await.unwrap() }
    })
    .await;
    let mut client = stage.secured(&app, BYTES).await;
    client.write_all(b"\x80some of it").await.unwrap();
    client.flush().await.unwrap();
    in_time(async {
        while app.count() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    // The socket's end, and no close_notify.
    let (mut socket, _) = client.into_inner();
    socket.shutdown().await.unwrap();
    let (_, ended) = in_time(hears.recv()).await.unwrap();
    assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset, "what came may not be all");
    let story = stage.node.stories(1).await.remove(0);
    assert_eq!((story.flags, &*story.details), ("DC", "downstream_remote_disconnect"));
}

#[tokio::test]
async fn many_bytes_arrive_whole_and_in_order_both_ways() {
    const LENGTH: usize = 64 * 1024 * 1024;
    let stage = Stage::new(&[BASE, STRICT]).await;
    let app = App::echo(stage.node.server.ip).await;
    let (mut read, mut write) = tokio::io::split(stage.secured(&app, BYTES).await);
    let chunk = |index: usize| {
        let first = u8::try_from(index % 251).unwrap();
        (0..64 * 1024_u32).map(|at| first.wrapping_add(at as u8)).collect::<Vec<u8>>()
    };
    let chunks = LENGTH / (64 * 1024);
    let sending = tokio::spawn(async move {
        for index in 0..chunks {
            write.write_all(&chunk(if index == 0 { 128 } else { index })).await.unwrap();
        }
        write.shutdown().await.unwrap();
        write
    });
    let mut buffer = vec![0; 64 * 1024];
    for index in 0..chunks {
        in_time(read.read_exact(&mut buffer)).await.unwrap();
        assert!(buffer == chunk(if index == 0 { 128 } else { index }), "chunk {index}");
    }
    assert_eq!(in_time(read.read(&mut buffer)).await.unwrap(), 0);
    drop(sending.await.unwrap());
    let story = stage.node.stories(1).await.remove(0);
    assert_eq!((story.request_bytes, story.response_bytes), (LENGTH as u64, LENGTH as u64));
}

#[tokio::test]
async fn a_reader_that_stops_holds_up_the_sender() {
    let stage = Stage::new(&[BASE, STRICT]).await;
    let sent = Arc::new(AtomicU32::new(0));
    let app = {
        let sent = Arc::clone(&sent);
        App::serve(stage.node.server.ip, move |_, mut stream| {
            let sent = Arc::clone(&sent);
            async move {
                let mebibyte = vec![0x80; 1024 * 1024];
                while stream.write_all(&mebibyte).await.is_ok() {
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            }
        })
        .await
    };
    let mut client = stage.secured(&app, BYTES).await;
    let mut before = u32::MAX;
    // Until nothing more fits anywhere.
    in_time(async {
        while sent.load(Ordering::Relaxed) != before {
            before = sent.load(Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    })
    .await;
    assert!(before < 64, "{before} MiB are held somewhere");
    let mut some = vec![0; 4 * 1024 * 1024];
    in_time(client.read_exact(&mut some)).await.unwrap();
    assert!(some.iter().all(|byte| *byte == 0x80));
}
