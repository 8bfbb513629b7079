//! Draining: no request fails, and what will not end is cut in time.

use super::*;

/// Sends requests, one after the other, until the proxy closes politely. A connection that is
/// refused was never a request.
async fn client(address: SocketAddr, answered: Arc<Mutex<usize>>) -> Result<(), String> {
    loop {
        let Ok(mut socket) = TcpStream::connect(address).await else { return Ok(()) };
        loop {
            socket.write_all(GET).await.map_err(|error| format!("write: {error}"))?;
            let mut text = String::new();
            let mut buffer = [0; 1024];
            while !text.ends_with("\r\n\r\nok") {
                let length = socket.read(&mut buffer).await.map_err(|e| format!("read: {e}"))?;
                if length == 0 {
                    return Err(format!("closed after {text:?}"));
                }
                text.push_str(&String::from_utf8_lossy(&buffer[..length]));
            }
            *answered.lock().unwrap() += 1;
            if text.contains("connection: close") {
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_when_draining_under_load() {
    let upstream = Upstream::ok().await;
    let house = House::start(upstream.address, Limits::default()).await;
    let answered = Arc::new(Mutex::new(0));
    let clients: Vec<_> =
        (0..16).map(|_| tokio::spawn(client(house.address, Arc::clone(&answered)))).collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = *answered.lock().unwrap();
    assert!(before > 0);
    let report = house.drain().await;
    assert_eq!(report.cut, 0, "{report:?}");
    assert!(report.connections > 0, "{report:?}");
    for client in clients {
        assert_eq!(client.await.unwrap(), Ok(()));
    }
}

#[tokio::test]
async fn a_request_under_way_ends_and_an_idle_connection_closes() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let house = House::start(listener.local_addr().unwrap(), Limits::default()).await;
    let mut idle = house.connect().await;
    let mut busy = house.connect().await;
    busy.write_all(GET).await.unwrap();
    let (mut upstream, _) = listener.accept().await.unwrap();
    read_until(&mut upstream, "\r\n\r\n").await;
    let address = house.address;
    house.stop.cancel();
    assert_eq!(read_all(&mut idle).await, "");
    assert!(TcpStream::connect(address).await.is_err(), "no new connections");
    upstream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
    let response = read_all(&mut busy).await;
    assert!(response.ends_with("ok") && response.contains("connection: close"), "{response}");
    assert_eq!(house.running.await.unwrap().cut, 0);
}

#[tokio::test]
async fn a_request_on_an_idle_connection_while_draining_is_answered() {
    let upstream = Upstream::ok().await;
    let house = House::start(upstream.address, Limits::default()).await;
    let mut socket = house.connect().await;
    socket.write_all(GET).await.unwrap();
    read_until(&mut socket, "ok").await;
    house.stop.cancel();
    tokio::time::sleep(Duration::from_millis(300)).await;
    socket.write_all(GET).await.unwrap();
    let response = read_all(&mut socket).await;
    assert!(response.ends_with("ok") && response.contains("connection: close"), "{response}");
    assert_eq!(house.running.await.unwrap().cut, 0);
}

#[tokio::test]
async fn what_does_not_end_is_cut_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let limits = Limits { drain_timeout_ms: 200, ..Limits::default() };
    let house = House::start(listener.local_addr().unwrap(), limits).await;
    let mut socket = house.connect().await;
    socket.write_all(GET).await.unwrap();
    let (mut upstream, _) = listener.accept().await.unwrap();
    read_until(&mut upstream, "\r\n\r\n").await;
    let stories = Arc::clone(&house.stories);
    let report = house.drain().await;
    assert_eq!(report.cut, 1, "{report:?}");
    assert!(report.took < Duration::from_secs(1), "{report:?}");
    assert_eq!(stories.0.lock().unwrap()[0].flags, "DC");
}
