//! HTTP/2, on both sides.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::{
    Response,
    body::{Frame, Incoming},
    client::conn::http2::SendRequest,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::*;

pub(super) type Body = http_body_util::combinators::BoxBody<Bytes, std::convert::Infallible>;

pub(super) fn full(text: &'static str) -> Body {
    Full::new(Bytes::from_static(text.as_bytes())).boxed()
}

pub(super) async fn client(address: SocketAddr) -> SendRequest<Body> {
    let socket = TcpStream::connect(address).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await.unwrap();
    tokio::spawn(connection);
    sender
}

pub(super) fn get(path: &str) -> http::request::Builder {
    http::Request::get(format!("http://a{path}"))
}

/// Answers with what it was asked, as trailers too.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let service = service_fn(|request: http::Request<Incoming>| async move {
                let line = format!("{:?} {} {}", request.version(), request.method(), request.uri());
                let te = request.headers().get("te").cloned();
                let body = request.into_body().collect().await.unwrap();
                let mut trailers = body.trailers().cloned().unwrap_or_default();
                trailers.insert("grpc-status", "0".parse().unwrap());
                let frames = vec![
                    Ok::<_, std::convert::Infallible>(Frame::data(body.to_bytes())),
                    Ok(Frame::trailers(trailers)),
                ];
                let body = StreamBody::new(futures_util::stream::iter(frames));
                let response = Response::builder().header("x-line", line);
                let response = match te {
                    Some(te) => response.header("x-te", te),
                    None => response,
                };
                Ok::<_, hyper::Error>(response.body(body).unwrap())
            });
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(builder.serve_connection(TokioIo::new(socket), service));
        }
    });
    address
}

#[tokio::test]
async fn prior_knowledge_to_an_http1_upstream() {
    let upstream = Upstream::ok().await;
    let house = House::start(upstream.address, Limits::default()).await;
    let mut client = client(house.address).await;
    let request = http::Request::post("http://a/x?y=z").body(full("hello")).unwrap();
    let response = client.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "ok");
    let seen = upstream.seen();
    assert!(seen.starts_with("POST /x?y=z HTTP/1.1\r\n") && seen.ends_with("\r\n\r\nhello"), "{seen}");
    assert!(seen.contains("host: a\r\n"), "{seen}");
    let denied = client.send_request(get("/denied").body(full("")).unwrap()).await.unwrap();
    assert_eq!(denied.status(), 403);
    let stories = house.stories(2).await;
    assert_eq!((stories[0].request_bytes, stories[0].http_version), (5, "HTTP/2"));
}

#[tokio::test]
async fn grpc_goes_upstream_in_http2_with_its_trailers() {
    let house = House::start(echo().await, Limits::default()).await;
    let mut client = client(house.address).await;
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-end", "1".parse().unwrap());
    trailers.insert("authorization", "Bearer smuggled".parse().unwrap());
    let frames = vec![Ok(Frame::data(Bytes::from_static(b"\0\0\0\0\x02hi"))), Ok(Frame::trailers(trailers))];
    let body = BodyExt::boxed(StreamBody::new(futures_util::stream::iter(frames)));
    let request = http::Request::post("http://a/grpc.Service/Method")
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    let response = client.send_request(request.body(body).unwrap()).await.unwrap();
    let line = response.headers()["x-line"].to_str().unwrap().to_owned();
    assert_eq!(line, "HTTP/2.0 POST http://a/grpc.Service/Method");
    assert_eq!(response.headers()["x-te"], "trailers");
    let body = response.into_body().collect().await.unwrap();
    let trailers = body.trailers().unwrap();
    assert_eq!(
        (&trailers["grpc-status"], &trailers["x-end"]),
        (&"0".parse().unwrap(), &"1".parse().unwrap())
    );
    assert!(!trailers.contains_key("authorization"), "{trailers:?}");
    let story = house.stories(1).await.remove(0);
    assert_eq!((story.grpc_status, story.messages), (Some(0), (1, 1)));
}

#[tokio::test]
async fn limits_hold_per_stream() {
    let upstream = Upstream::ok().await;
    let limits = Limits { request_body_bytes: 10, head_bytes: 2000, header_count: 20, ..Limits::default() };
    let house = House::start(upstream.address, limits).await;
    let mut client = client(house.address).await;
    let frames = (0..3).map(|_| Ok(Frame::data(Bytes::from_static(b"123456"))));
    let body = BodyExt::boxed(StreamBody::new(futures_util::stream::iter(frames)));
    let response = client.send_request(http::Request::post("http://a/").body(body).unwrap()).await.unwrap();
    assert_eq!(response.status(), 413);
    let large = get("/").header("x", "x".repeat(2500)).body(full("")).unwrap();
    assert_eq!(client.send_request(large).await.unwrap().status(), 431);
    let many = (0..30).fold(get("/"), |request, n| request.header(format!("x-{n}"), "y"));
    assert_eq!(client.send_request(many.body(full("")).unwrap()).await.unwrap().status(), 431);
    let refused: Vec<_> = house.stories(3).await.iter().map(|story| story.refused).collect();
    assert_eq!(refused, [Some("request_body_bytes"), Some("head_bytes"), Some("header_count")]);
    let fine = client.send_request(get("/").body(full("")).unwrap()).await.unwrap();
    assert_eq!(fine.status(), 200, "the connection lives on");
}

#[tokio::test]
async fn head_gets_no_body() {
    let upstream = Upstream::answering(&["HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n"]).await;
    let house = House::start(upstream.address, Limits::default()).await;
    let mut client = client(house.address).await;
    for path in ["/", "/denied"] {
        let request = http::Request::head(format!("http://a{path}")).body(full("")).unwrap();
        let response = client.send_request(request).await.unwrap();
        assert!(response.headers().contains_key("content-length"));
        assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty());
    }
}

#[tokio::test]
async fn a_response_cut_upstream_resets_the_stream_alone() {
    let cut = "HTTP/1.1 200 OK\r\nConnection: close\r\ncontent-length: 50\r\n\r\nhalf";
    let upstream = Upstream::answering(&[cut, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"]).await;
    let house = House::start(upstream.address, Limits::default()).await;
    let mut client = client(house.address).await;
    // The reset may overtake the head that was already written.
    if let Ok(response) = client.send_request(get("/").body(full("")).unwrap()).await {
        assert!(response.into_body().collect().await.is_err());
    }
    let response = client.send_request(get("/").body(full("")).unwrap()).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "ok");
    assert_eq!(house.stories(2).await[0].flags, "UC");
}

#[tokio::test]
async fn draining_says_goodbye_and_ends_what_is_under_way() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let house = House::start(listener.local_addr().unwrap(), Limits::default()).await;
    let mut client = client(house.address).await;
    let response = tokio::spawn(client.send_request(get("/").body(full("")).unwrap()));
    let (mut upstream, _) = listener.accept().await.unwrap();
    read_until(&mut upstream, "\r\n\r\n").await;
    house.stop.cancel();
    tokio::time::sleep(Duration::from_millis(200)).await;
    upstream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
    let response = response.await.unwrap().unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "ok");
    let report = house.running.await.unwrap();
    assert_eq!(report.cut, 0, "{report:?}");
    assert!(report.took < Duration::from_secs(2), "{report:?}");
}

#[tokio::test]
async fn a_stream_without_window_does_not_keep_its_place() {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let limits = Limits { response_idle_timeout_ms: 200, ..Limits::default() };
    let house = House::start(upstream.local_addr().unwrap(), limits).await;
    tokio::spawn(async move {
        let (mut socket, _) = upstream.accept().await.unwrap();
        read_until(&mut socket, "\r\n\r\n").await;
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n";
        // The proxy hangs up in the middle.
        let _ = socket.write_all(&[head.as_slice(), &[b'x'; 1_000_000]].concat()).await;
    });
    let socket = TcpStream::connect(house.address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(0)
        .handshake::<_, Body>(TokioIo::new(socket))
        .await
        .unwrap();
    tokio::spawn(connection);
    let response = sender.send_request(get("/x").body(full("")).unwrap()).await.unwrap();
    assert_eq!(response.status(), 200);
    let stories = tokio::time::timeout(Duration::from_secs(5), house.stories(1)).await.unwrap();
    assert_eq!(stories[0].flags, "DC");
    assert!(response.into_body().collect().await.is_err(), "the stream is reset, not ended");
}
