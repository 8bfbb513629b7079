//! The attacker over HTTP/1.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// What is waited for longer than this does not come.
const LIMIT: Duration = Duration::from_secs(60);

/// What came back.
#[derive(Debug, Default)]
pub struct Told {
    /// Final answers: status and body.
    pub answers: Vec<(u16, String)>,
    /// Bytes behind the last whole answer.
    pub rest: String,
}

/// How the bytes leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// All at once.
    AtOnce,
    /// One write for each byte.
    ByBytes,
}

/// Sends the bytes, and reads `answers` answers. Where the proxy is not to close by itself, our side
/// is closed then; what still comes is read in either case.
///
/// # Panics
/// When the answers or the close do not come.
pub async fn say(address: SocketAddr, bytes: &[u8], pace: Pace, answers: usize, closes: bool) -> Told {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.set_nodelay(true).unwrap();
    let mut got = Vec::new();
    match pace {
        Pace::AtOnce => drop(socket.write_all(bytes).await),
        Pace::ByBytes => {
            for byte in bytes.chunks(1) {
                // A proxy that has refused us may be gone: its words are taken before we go on.
                let mut buffer = [0; 1024];
                if let Ok(length) = socket.try_read(&mut buffer) {
                    got.extend_from_slice(&buffer[..length]);
                }
                if socket.write_all(byte).await.is_err() {
                    break;
                }
            }
        }
    }
    let read = async {
        while closes || parse(&got).answers.len() < answers {
            if !more(&mut socket, &mut got).await {
                return;
            }
        }
        let _ = socket.shutdown().await;
        while more(&mut socket, &mut got).await {}
    };
    let ended = timeout(LIMIT, read).await;
    let told = parse(&got);
    assert!(ended.is_ok(), "the connection is neither answered nor closed: {told:?}");
    told
}

async fn more(socket: &mut TcpStream, got: &mut Vec<u8>) -> bool {
    matches!(socket.read_buf(got).await, Ok(1..))
}

fn parse(bytes: &[u8]) -> Told {
    let mut told = Told::default();
    let mut rest = bytes;
    while let Some((status, body, after)) = answer(rest) {
        if status >= 200 {
            told.answers.push((status, body));
        }
        rest = after;
    }
    told.rest = String::from_utf8_lossy(rest).into_owned();
    told
}

/// Our own answers have a length, and the recording server's too.
fn answer(bytes: &[u8]) -> Option<(u16, String, &[u8])> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head.strip_prefix("HTTP/1.1 ").or_else(|| head.strip_prefix("HTTP/1.0 "))?;
    let status = status.get(..3)?.parse().ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let (body, after) = bytes[end + 4..].split_at_checked(length.unwrap_or(0))?;
    Some((status, String::from_utf8_lossy(body).into_owned(), after))
}
