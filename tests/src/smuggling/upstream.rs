//! A server that keeps every byte that reaches it, and answers with the target it was asked for.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};

use super::reading::strict;

/// How long the connections may take to end once the proxy has.
const LIMIT: Duration = Duration::from_secs(60);

/// A recording server.
pub struct Upstream {
    /// Where it listens.
    pub address: SocketAddr,
    connections: Arc<Mutex<JoinSet<Vec<u8>>>>,
}

impl Upstream {
    /// Starts it.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(Mutex::new(JoinSet::new()));
        let all = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                all.lock().unwrap().spawn(serve(socket));
            }
        });
        Self { address, connections }
    }

    /// The bytes of each connection, once all have ended.
    ///
    /// # Panics
    /// When one does not end.
    pub async fn finish(self) -> Vec<Vec<u8>> {
        let mut connections = std::mem::take(&mut *self.connections.lock().unwrap());
        let mut all = Vec::new();
        while let Some(bytes) = timeout(LIMIT, connections.join_next()).await.expect("all connections end") {
            all.push(bytes.unwrap());
        }
        all
    }
}

async fn serve(mut socket: TcpStream) -> Vec<u8> {
    let (mut bytes, mut answered) = (Vec::new(), 0);
    while matches!(socket.read_buf(&mut bytes).await, Ok(1..)) {
        // What cannot be read is recorded to its end, and not answered.
        let seen = strict(&bytes).unwrap_or_default();
        let complete: Vec<_> = seen.iter().filter(|seen| seen.complete).collect();
        for seen in complete.iter().skip(answered) {
            let target = &seen.target;
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{target}", target.len());
            let _ = socket.write_all(answer.as_bytes()).await;
        }
        answered = complete.len().max(answered);
    }
    bytes
}
