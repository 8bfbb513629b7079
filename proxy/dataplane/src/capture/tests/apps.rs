//! Applications inside the pods.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// An application that listens.
pub(super) struct App {
    pub(super) address: SocketAddr,
    /// Connections so far.
    pub(super) connections: Arc<AtomicUsize>,
}

impl App {
    /// Serves each connection by a script, which is told the connection's number.
    pub(super) async fn serve<F>(
        ip: std::net::IpAddr,
        script: impl Fn(usize, TcpStream) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(script(count.fetch_add(1, Ordering::Relaxed), stream));
            }
        });
        Self { address, connections }
    }

    /// Answers HTTP/1 requests by who called, on which connection, and the request's first line.
    pub(super) async fn http(ip: std::net::IpAddr) -> Self {
        Self::serve(ip, http).await
    }

    /// Says nothing until asked, and then the same.
    pub(super) async fn echo(ip: std::net::IpAddr) -> Self {
        Self::serve(ip, |_, mut stream| async move {
            let (mut read, mut write) = stream.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
            let _ = write.shutdown().await;
        })
        .await
    }

    pub(super) fn count(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

async fn http(number: usize, mut stream: TcpStream) {
    let peer = stream.peer_addr().unwrap().ip();
    let mut bytes = Vec::new();
    loop {
        while let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8(bytes.drain(..end + 4).collect()).unwrap();
            let line = head.lines().next().unwrap();
            let body = format!("{peer} {number} {line}");
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
        match stream.read_buf(&mut bytes).await {
            Ok(length) if length > 0 => {}
            _ => return,
        }
    }
}
