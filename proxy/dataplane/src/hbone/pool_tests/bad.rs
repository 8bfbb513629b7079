//! Servers that mean no good.

use super::*;

/// Speaks HTTP/2 as `bad` does with the first tunnel that it is asked for.
async fn against<F, A>(bad: F, answer: Duration) -> (Lane, UpstreamFault, usize)
where
    F: Fn(Request<RecvStream>, SendResponse<Bytes>) -> A + Send + Sync + 'static,
    A: Future<Output = ()> + Send + 'static,
{
    let (bad, asked) = (Arc::new(bad), Arc::new(AtomicUsize::new(0)));
    let lane = Lane::new(1000, Patience { answer, ..patience() });
    let open = || {
        let (near, far) = tokio::io::duplex(256 * 1024);
        let (bad, asked) = (Arc::clone(&bad), Arc::clone(&asked));
        tokio::spawn(async move {
            let Ok(mut connection) = h2::server::handshake(far).await else { return };
            while let Some(Ok((request, answer))) = connection.accept().await {
                asked.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(bad(request, answer));
            }
        });
        async { Ok((near, forever())) }
    };
    let fault = fault(timeout(LONG, lane.tunnel(connect, open)).await.expect("it took too long"));
    (lane, fault, asked.load(Ordering::SeqCst))
}

#[tokio::test]
async fn interim_answers_are_no_answer_however_many() {
    let interim = |_held: Request<RecvStream>, mut answer: SendResponse<Bytes>| async move {
        loop {
            let response = Response::builder().status(103).header("x", "y").body(()).unwrap();
            if answer.send_informational(response).is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    let (_, fault, asked) = against(interim, Duration::from_secs(1)).await;
    assert_eq!((fault, asked), (TunnelFault::Silent.into(), 1));
}

#[tokio::test]
async fn an_answer_of_endless_headers_is_none() {
    let flood = |_held: Request<RecvStream>, mut answer: SendResponse<Bytes>| async move {
        let mut response = Response::builder().status(200).body(()).unwrap();
        for number in 0..1000 {
            let name = http::HeaderName::try_from(format!("x-{number}")).unwrap();
            response.headers_mut().insert(name, http::HeaderValue::from_static("a value of some length"));
        }
        let _ = answer.send_response(response, false);
        pending::<()>().await;
    };
    let (lane, fault, asked) = against(flood, LONG).await;
    assert_eq!(fault, TunnelFault::Protocol.into());
    assert_eq!(asked, 1, "and it is not asked again");
    assert!(lane.connections() <= 1);
}

#[tokio::test]
async fn a_server_that_takes_no_tunnel_gets_none() {
    let mut server = Server::new(Does::Echo);
    server.streams = 0;
    let (server, lane) = (Arc::new(server), lane());
    for tried in 1..=3 {
        assert_eq!(fault(tunnel(&lane, &server).await), TunnelFault::Protocol.into());
        assert_eq!((server.opened(), lane.connections()), (tried, 0));
    }
    let ended = async {
        while server.closed.load(Ordering::SeqCst) < 3 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, ended).await.expect("its connections end");
}

/// RFC 9113 §8.5: DATA alone; a length is no part of a tunnel, and what contradicts it is no end of one.
#[tokio::test]
async fn an_answer_that_contradicts_itself_ends_by_an_error_and_not_as_if_all_were_said() {
    let (near, far) = tokio::io::duplex(256 * 1024);
    tokio::spawn(async move {
        let mut connection = h2::server::handshake(far).await.unwrap();
        let (_request, mut answer) = connection.accept().await.unwrap().unwrap();
        let response = Response::builder().header("content-length", "3").body(()).unwrap();
        let mut send = answer.send_response(response, false).unwrap();
        send.send_data(Bytes::from_static(b"hello"), true).unwrap();
        while connection.accept().await.is_some() {}
    });
    let (near, lane) = (std::sync::Mutex::new(Some(near)), lane());
    let open = || {
        let near = near.lock().unwrap().take().unwrap();
        async { Ok((near, forever())) }
    };
    let (mut stream, _) = timeout(LONG, lane.tunnel(connect, open)).await.unwrap().unwrap();
    let mut read = Vec::new();
    assert!(timeout(LONG, stream.read_to_end(&mut read)).await.unwrap().is_err(), "{read:?}");
}
