//! Clients with a certificate that mean harm: they are left, and others are served on.

use super::{frames::*, *};

/// Whether others are served.
async fn assert_served(stage: &Stage, app: &App) {
    let mut tunnel = stage.open("client").await.tunnel(&stage.at(app.port())).await;
    tunnel.write_all(b"\x80ping").await.unwrap();
    let mut back = [0; 5];
    in_time(tunnel.read_exact(&mut back)).await.unwrap();
}

/// Says it again and again, until the connection is ended by the other side or so much was said.
async fn flood(frames: &mut Frames, mut next: impl FnMut(u32) -> Vec<u8>, times: u32) -> bool {
    for number in 0..times {
        match timeout(Duration::from_secs(5), frames.say(&next(number))).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return true,
            // The other side does not read on: as good.
            Err(_) => return false,
        }
    }
    false
}

#[tokio::test]
async fn streams_that_are_reset_at_once_end_the_connection() {
    let stage = Stage::new(NOBODY).await;
    let app = App::echo(stage.ip).await;
    let authority = stage.at(app.port());
    let mut frames = Frames::over(stage.dial(stage.entrance, "nuisance").await).await;
    let both = |number: u32| {
        let stream = 2 * number + 1;
        let mut bytes = connect(stream, &authority);
        bytes.extend(frame(RESET, 0, stream, &8_u32.to_be_bytes()));
        bytes
    };
    flood(&mut frames, both, 100_000).await;
    let mut goodbye = None;
    while let Some(frame) = frames.next().await {
        if frame.kind == GOAWAY {
            goodbye = Some(u32::from_be_bytes(frame.payload[4..8].try_into().unwrap()));
            break;
        }
    }
    // ENHANCE_YOUR_CALM; or the goodbye was lost in the reset of a connection that was still talking.
    assert!(goodbye.is_none_or(|code| code == 11), "{goodbye:?}");
    assert!(app.count() < 1_000, "{}", app.count());
    assert_served(&stage, &app).await;
}

#[tokio::test]
async fn tunnels_that_are_reset_before_their_answer_end_the_connection() {
    let stage = Stage::new(NOBODY).await;
    let app = App::echo(stage.ip).await;
    let service = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: db, namespace: datamesh}}\n\
         spec: {{selector: {{app: fhir-server}}, ports: [{{port: {}, name: tcp-db}}]}}\n",
        app.port()
    );
    stage.publish(&[BASE, &service]);
    stage.stuck.store(true, Ordering::Relaxed);
    let Tunnels { mut send, ended } = stage.open("nuisance").await;
    let request = || Request::connect(stage.at(app.port())).body(()).unwrap();
    for asked in 0.. {
        assert!(asked < 10_000, "nobody minds");
        let Ok(ready) = in_time(send.ready()).await else { break };
        send = ready;
        let Ok((answer, mut stream)) = send.send_request(request(), false) else { break };
        // Time to be looked at.
        let _ = timeout(Duration::from_millis(5), answer).await;
        stream.send_reset(h2::Reason::CANCEL);
    }
    let error = in_time(ended).await.unwrap().unwrap_err();
    assert_eq!(error.reason(), Some(h2::Reason::ENHANCE_YOUR_CALM), "{error}");
    stage.stuck.store(false, Ordering::Relaxed);
    assert_eq!(app.count(), 0);
    assert_served(&stage, &app).await;
}

#[tokio::test]
async fn a_header_block_without_end_ends_the_connection() {
    let stage = Stage::new(NOBODY).await;
    let app = App::echo(stage.ip).await;
    let mut frames = Frames::over(stage.dial(stage.entrance, "nuisance").await).await;
    frames.headers(1, &[(":method", "CONNECT"), (":authority", &stage.at(app.port()))], false).await;
    let more = block(&[("x-a", "a".repeat(100).as_str()); 100]);
    let ended = flood(&mut frames, |_| frame(CONTINUATION, 0, 1, &more), 100_000).await;
    assert!(ended, "a gigabyte of headers was taken");
    // And empty ones.
    let mut frames = Frames::over(stage.dial(stage.entrance, "nuisance").await).await;
    frames.headers(1, &[(":method", "CONNECT")], false).await;
    let ended = flood(&mut frames, |_| frame(CONTINUATION, 0, 1, &[]).repeat(100), 100_000).await;
    assert!(ended, "ten million empty frames were taken");
    assert_eq!(app.count(), 0);
    assert_served(&stage, &app).await;
}

#[tokio::test]
async fn pings_and_settings_without_end_hold_up_nobody_else() {
    let stage = Stage::new(NOBODY).await;
    let app = App::echo(stage.ip).await;
    for one in [frame(PING, 0, 0, &[7; 8]), frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9]), frame(99, 0, 0, &[])]
    {
        // Answers are not read.
        let mut frames = Frames::over(stage.dial(stage.entrance, "nuisance").await).await;
        let many = one.repeat(500);
        let flooding = tokio::spawn(async move { flood(&mut frames, |_| many.clone(), 400).await });
        assert_served(&stage, &app).await;
        in_time(flooding).await.unwrap();
        assert_served(&stage, &app).await;
    }
}

#[tokio::test]
async fn of_a_thousand_streams_at_once_no_more_are_opened_than_were_allowed() {
    let limits = Limits { tunnels_per_connection: 10, ..Limits::default() };
    let stage = Stage::with(NOBODY, limits, None).await;
    let app = App::echo(stage.ip).await;
    let authority = stage.at(app.port());
    let mut frames = Frames::over(stage.dial(stage.entrance, "nuisance").await).await;
    let mut all = Vec::new();
    for number in 0..1_000 {
        all.extend(connect(2 * number + 1, &authority));
    }
    let _ = timeout(Duration::from_secs(5), frames.say(&all)).await;
    let (mut opened, mut refused) = (0, 0);
    while opened + refused < 1_000
        && let Some(frame) = frames.next().await
    {
        match frame.kind {
            HEADERS if status(&frame.payload) == 200 => opened += 1,
            RESET => refused += 1,
            GOAWAY => break,
            _ => {}
        }
    }
    assert!(opened <= 10, "{opened}");
    assert!(app.count() <= 10);
    assert_served(&stage, &app).await;
}

#[tokio::test]
async fn a_thousand_silent_streams_of_ten_connections_are_within_the_pods_limit() {
    let limits = Limits { connections_per_pod: 300, ..Limits::default() };
    let stage = Stage::with(NOBODY, limits, None).await;
    let app = App::echo(stage.ip).await;
    let authority = stage.at(app.port());
    let mut connections = Vec::new();
    for _ in 0..10 {
        connections.push(stage.open("nuisance").await);
    }
    let (mut held, mut opened, mut refused) = (Vec::new(), 0, 0);
    for tunnels in &connections {
        for _ in 0..100 {
            let answer = tunnels.ask(Request::connect(&authority).body(()).unwrap()).await.unwrap();
            if answer.0 == 200 {
                opened += 1;
                held.push(answer);
            } else {
                assert_eq!(answer.0, 503);
                refused += 1;
            }
        }
    }
    assert_eq!((opened, refused), (290, 710));
    drop(held);
    eventually(async || connections[9].status(&authority).await.unwrap() == 200).await;
}

#[tokio::test]
async fn more_than_the_window_or_on_a_stream_that_is_none_ends_the_connection() {
    let stage = Stage::new(NOBODY).await;
    let app = App::serve(stage.ip, |stream| async move {
        tokio::time::sleep(LONG).await;
        drop(stream);
    })
    .await;
    let authority = stage.at(app.port());
    // As if there were no windows.
    let mut frames = Frames::over(stage.dial(stage.entrance, "nuisance").await).await;
    frames.say(&connect(1, &authority)).await.unwrap();
    assert_eq!(frames.answer(1).await, Some(200));
    let data = frame(DATA, 0, 1, &[0; 16_384]);
    let _ = flood(&mut frames, |_| data.clone(), 20_000).await;
    let mut ended = false;
    while !ended && let Some(frame) = frames.next().await {
        ended = matches!(frame.kind, RESET | GOAWAY);
    }
    assert!(ended || frames.say(&data).await.is_err());
    // Streams backwards, even ones, and data before headers.
    for bad in
        [connect(2, &authority), data.clone(), [connect(5, &authority), connect(3, &authority)].concat()]
    {
        let mut frames = Frames::over(stage.dial(stage.entrance, "nuisance").await).await;
        frames.say(&bad).await.unwrap();
        let mut ended = false;
        while let Some(frame) = frames.next().await {
            if frame.kind == GOAWAY {
                ended = true;
                break;
            }
        }
        assert!(ended);
    }
    let echo = App::echo(stage.ip).await;
    assert_served(&stage, &echo).await;
}
