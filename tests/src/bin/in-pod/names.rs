//! A name server: one address for every name, over UDP and TCP (RFC 1035).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
};

use crate::{Outcome, say};

const PORT: u16 = 53;
const HEAD: usize = 12;
const TYPE_A: u16 = 1;
const TTL: u32 = 1;

/// Answers every question with `answer`; says `asked PEER` for each.
pub async fn run(name: &str, answer: Ipv4Addr) -> Outcome<()> {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, PORT)).await?;
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)).await?;
    say(&format!("ready {name}"));
    let tcp = tokio::spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = exchange(stream, peer, answer).await;
            });
        }
    });
    datagrams(socket, answer).await;
    Ok(tcp.await?)
}

async fn datagrams(socket: UdpSocket, answer: Ipv4Addr) {
    let mut query = [0; 4096];
    loop {
        let Ok((length, peer)) = socket.recv_from(&mut query).await else { continue };
        let Some(reply) = query.get(..length).and_then(|query| reply(query, answer)) else { continue };
        say(&format!("asked {peer}"));
        let _ = socket.send_to(&reply, peer).await;
    }
}

async fn exchange(mut stream: TcpStream, peer: SocketAddr, answer: Ipv4Addr) -> std::io::Result<()> {
    loop {
        let length = stream.read_u16().await?;
        let mut query = vec![0; usize::from(length)];
        stream.read_exact(&mut query).await?;
        let Some(reply) = reply(&query, answer) else { return Ok(()) };
        say(&format!("asked {peer}"));
        stream.write_u16(u16::try_from(reply.len()).unwrap_or(0)).await?;
        stream.write_all(&reply).await?;
    }
}

/// Head, question, and for a question of type A one answer.
fn reply(query: &[u8], answer: Ipv4Addr) -> Option<Vec<u8>> {
    let mut end = HEAD;
    while *query.get(end)? != 0 {
        end += 1 + usize::from(*query.get(end)?);
    }
    let question = query.get(HEAD..end + 5)?;
    let asked = u16::from_be_bytes([*query.get(end + 1)?, *query.get(end + 2)?]);
    let answers = u16::from(asked == TYPE_A);
    let mut reply = query.get(..2)?.to_vec();
    // A response, recursion asked for and available.
    reply.extend([0x81, 0x80, 0, 1]);
    reply.extend(answers.to_be_bytes());
    reply.extend([0; 4]);
    reply.extend(question);
    if asked == TYPE_A {
        // The name is the question's: a pointer to it.
        reply.extend([0xc0, 0x0c, 0, 1, 0, 1]);
        reply.extend(TTL.to_be_bytes());
        reply.extend([0, 4]);
        reply.extend(answer.octets());
    }
    Some(reply)
}
