//! What goes through a tunnel: all of it, both ways, and no more at once than the windows.

use http::HeaderMap;

use super::*;

const MANY: usize = 64 * 1024 * 1024;

/// Sends so many bytes and ends its side.
async fn send(to: &mut (impl tokio::io::AsyncWrite + Unpin), count: usize) -> io::Result<()> {
    let chunk: Vec<u8> = (0..64 * 1024).map(|byte| u8::try_from(byte % 251).unwrap()).collect();
    for _ in 0..count / chunk.len() {
        to.write_all(&chunk).await?;
    }
    to.shutdown().await
}

/// Reads to the end; every byte in its place.
async fn receive(from: &mut (impl tokio::io::AsyncRead + Unpin)) -> io::Result<usize> {
    let (mut buffer, mut count) = (vec![0; 64 * 1024], 0);
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Ok(count);
        }
        for byte in &buffer[..length] {
            assert_eq!(*byte, u8::try_from((count % (64 * 1024)) % 251).unwrap());
            count += 1;
        }
    }
}

#[tokio::test]
async fn every_byte_arrives_whoever_ends_first() {
    let stage = Stage::new(NOBODY).await;
    let tunnels = stage.open("client").await;
    // The application ends first, and hears the client to its end after that.
    let (heard, mut told) = mpsc::channel(1);
    let app = App::serve(stage.ip, move |mut stream| {
        let heard = heard.clone();
        async move {
            send(&mut stream, MANY).await.unwrap();
            heard.send(receive(&mut stream).await).await.unwrap();
        }
    })
    .await;
    let mut tunnel = tunnels.tunnel(&stage.at(app.port())).await;
    assert_eq!(in_time(receive(&mut tunnel)).await.unwrap(), MANY);
    in_time(send(&mut tunnel, MANY)).await.unwrap();
    assert_eq!(in_time(told.recv()).await.unwrap().unwrap(), MANY);
    // The client ends first, and hears the application after that.
    let (heard, mut told) = mpsc::channel(1);
    let app = App::serve(stage.ip, move |mut stream| {
        let heard = heard.clone();
        async move {
            heard.send(receive(&mut stream).await).await.unwrap();
            send(&mut stream, MANY).await.unwrap();
        }
    })
    .await;
    let mut tunnel = tunnels.tunnel(&stage.at(app.port())).await;
    in_time(send(&mut tunnel, MANY)).await.unwrap();
    assert_eq!(in_time(told.recv()).await.unwrap().unwrap(), MANY);
    assert_eq!(in_time(receive(&mut tunnel)).await.unwrap(), MANY);
    let many = u64::try_from(MANY).unwrap();
    let story = stage.story(|story| story.request_bytes == many && story.response_bytes == many).await;
    assert_eq!((story.flags, story.details.as_str()), ("-", "closed"));
    assert!(story.mutual_tls && !story.from_kernel);
}

#[tokio::test]
async fn a_reset_is_one_on_the_other_side() {
    let stage = Stage::new(NOBODY).await;
    let tunnels = stage.open("client").await;
    // The client's.
    let (heard, mut told) = mpsc::channel(1);
    let app = App::serve(stage.ip, move |mut stream| {
        let heard = heard.clone();
        async move {
            let _ = stream.read_u8().await;
            let _ = stream.write_all(b"y").await;
            let ended = stream.read_to_end(&mut Vec::new()).await;
            heard.send(ended.map_err(|error| error.kind())).await.unwrap();
        }
    })
    .await;
    for reset in [true, false] {
        let request = Request::connect(stage.at(app.port())).body(()).unwrap();
        let (_, mut body, mut send) = tunnels.ask(request).await.unwrap();
        send.send_data(Bytes::from_static(b"\x80some"), false).unwrap();
        assert_eq!(in_time(body.data()).await.unwrap().unwrap(), "y");
        if reset {
            send.send_reset(h2::Reason::CANCEL);
        }
        // Dropped halfway it is a reset, too.
        drop((body, send));
        assert_eq!(in_time(told.recv()).await.unwrap(), Err(io::ErrorKind::ConnectionReset), "{reset}");
        stage.story(|story| story.details == "downstream_remote_disconnect").await;
    }
    // The application's.
    let app = App::serve(stage.ip, |mut stream| async move {
        let _ = stream.read_u8().await;
        let _ = stream.write_all(b"some").await;
        let _ = stream.set_zero_linger();
    })
    .await;
    let mut tunnel = tunnels.tunnel(&stage.at(app.port())).await;
    tunnel.write_all(b"\x80").await.unwrap();
    let mut all = Vec::new();
    let error = in_time(tunnel.read_to_end(&mut all)).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert!(all.is_empty() || all == b"some");
    stage.story(|story| story.details == "upstream_remote_disconnect").await;
}

#[tokio::test]
async fn trailers_end_a_tunnel_as_a_reset_does() {
    let stage = Stage::new(NOBODY).await;
    let tunnels = stage.open("client").await;
    let (heard, mut told) = mpsc::channel(1);
    let app = App::serve(stage.ip, move |mut stream| {
        let heard = heard.clone();
        async move {
            let mut all = Vec::new();
            let ended = stream.read_to_end(&mut all).await;
            heard.send(ended.map_err(|error| error.kind())).await.unwrap();
        }
    })
    .await;
    let request = Request::connect(stage.at(app.port())).body(()).unwrap();
    let (_, mut body, mut send) = tunnels.ask(request).await.unwrap();
    send.send_data(Bytes::from_static(b"\x80some"), false).unwrap();
    let forged = [("x-forwarded-client-cert", "URI=spiffe://forged")];
    let map = |fields: &[(&'static str, &str)]| -> HeaderMap {
        fields.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    };
    send.send_trailers(map(&forged)).unwrap();
    assert_eq!(in_time(told.recv()).await.unwrap(), Err(io::ErrorKind::ConnectionReset));
    assert!(in_time(body.data()).await.is_some_and(|data| data.is_err()));
}

#[tokio::test]
async fn a_reader_that_does_not_read_holds_up_its_own_tunnel_and_no_other() {
    let stage = Stage::new(NOBODY).await;
    let tunnels = stage.open("client").await;
    // Reads nothing; writes what it can, and counts.
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    let app = App::serve(stage.ip, move |mut stream| {
        let count = Arc::clone(&count);
        async move {
            let _ = stream.read_u8().await;
            let chunk = vec![7; 64 * 1024];
            while let Ok(length) = stream.write(&chunk).await {
                count.fetch_add(length, Ordering::Relaxed);
            }
        }
    })
    .await;
    let mut stuck = Vec::new();
    for _ in 0..8 {
        let (_, body, mut send) =
            tunnels.ask(Request::connect(stage.at(app.port())).body(()).unwrap()).await.unwrap();
        send.send_data(Bytes::from_static(b"\x80"), false).unwrap();
        // As much as the server takes: its window, and what the sockets behind it hold.
        send.reserve_capacity(MANY);
        stuck.push((body, send, 0_usize));
    }
    let mut still = 0;
    let mut before = (0, 0);
    // At rest: neither side has got on for a while.
    while still < 20 {
        for (_, send, sent) in &mut stuck {
            let room = send.capacity();
            if room > 0 {
                send.send_data(vec![0; room].into(), false).unwrap();
                send.reserve_capacity(MANY);
                *sent += room;
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = (stuck.iter().map(|(.., sent)| sent).sum::<usize>(), written.load(Ordering::Relaxed));
        still = if now == before { still + 1 } else { 0 };
        before = now;
    }
    // Sockets of the loopback hold up to some 6 MiB in each direction; nothing near all of it has gone.
    let (up, down) = before;
    assert!(up > 0 && up < 8 * 24 * 1024 * 1024, "{up}");
    assert!(down > 0 && down < 8 * 24 * 1024 * 1024, "{down}");
    let echo = App::echo(stage.ip).await;
    let mut other = tunnels.tunnel(&stage.at(echo.port())).await;
    for _ in 0..100 {
        other.write_all(b"\x80ping").await.unwrap();
        let mut back = [0; 5];
        in_time(other.read_exact(&mut back)).await.unwrap();
    }
    drop(stuck);
}
