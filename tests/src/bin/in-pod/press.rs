//! Many connections, and ones that are not read.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines, Stdin},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};

use crate::{Outcome, load::exchange, pattern, say, socket_for};

/// Connections that are being opened at a time: the listener's queue is not what is tested.
const OPENING: usize = 64;
const PATIENCE: Duration = Duration::from_secs(60);
const CHUNK: usize = 64 * 1024;
/// No byte taken for so long: what is between the two ends is full.
const FULL_AFTER: Duration = Duration::from_secs(2);

fn input() -> Lines<BufReader<Stdin>> {
    BufReader::new(tokio::io::stdin()).lines()
}

async fn open(to: SocketAddr) -> Outcome<BufReader<TcpStream>> {
    Ok(BufReader::new(timeout(PATIENCE, socket_for(to)?.connect(to)).await??))
}

async fn ask(to: SocketAddr) -> Outcome<BufReader<TcpStream>> {
    let mut stream = open(to).await?;
    timeout(PATIENCE, exchange(&mut stream)).await??;
    Ok(stream)
}

/// Opens `connections`, says `held NUMBER`, and asks each again for each line of input.
pub async fn hold(to: SocketAddr, connections: usize) -> Outcome<()> {
    let mut held = Vec::with_capacity(connections);
    let mut opening = JoinSet::new();
    let mut begun = 0;
    while held.len() < connections {
        while begun < connections && opening.len() < OPENING {
            opening.spawn(ask(to));
            begun += 1;
        }
        match opening.join_next().await {
            Some(outcome) => held.push(outcome??),
            None => break,
        }
    }
    say(&format!("held {}", held.len()));
    let mut lines = input();
    while lines.next_line().await?.is_some() {
        for stream in &mut held {
            timeout(PATIENCE, exchange(stream)).await??;
        }
        say(&format!("held {}", held.len()));
    }
    Ok(())
}

/// Asks for `bytes` on each connection and says `asked`; at a line of input reads and compares all.
pub async fn pull(to: SocketAddr, connections: usize, bytes: u64) -> Outcome<()> {
    let mut streams = Vec::new();
    for _ in 0..connections {
        let mut stream = open(to).await?;
        stream.write_all(format!("source {bytes}\n").as_bytes()).await?;
        streams.push(stream);
    }
    say("asked");
    input().next_line().await?;
    let mut reading = JoinSet::new();
    for mut stream in streams {
        reading.spawn(async move {
            let (mut read, mut chunk) = (0_u64, vec![0; CHUNK]);
            loop {
                let length = timeout(PATIENCE, stream.read(&mut chunk)).await??;
                if length == 0 {
                    break;
                }
                for byte in chunk.iter().take(length) {
                    if *byte != pattern(read) {
                        return Err(format!("byte {read} is wrong").into());
                    }
                    read += 1;
                }
            }
            if read == bytes {
                Ok(())
            } else {
                Err::<_, Box<dyn std::error::Error + Send + Sync>>(format!("{read} of {bytes} bytes").into())
            }
        });
    }
    while let Some(outcome) = reading.join_next().await {
        outcome??;
    }
    say("whole");
    Ok(())
}

/// Writes to a server that does not read, until no byte is taken any more; says `taken BYTES` of all
/// connections together.
pub async fn push(to: SocketAddr, connections: usize) -> Outcome<()> {
    let mut writing = JoinSet::new();
    for _ in 0..connections {
        writing.spawn(async move {
            let mut stream = open(to).await?;
            stream.write_all(b"stall\n").await?;
            let chunk: Vec<u8> = (0..CHUNK as u64).map(pattern).collect();
            let mut taken = 0;
            while let Ok(written) = timeout(FULL_AFTER, stream.write(&chunk)).await {
                taken += written?;
            }
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>((taken, stream))
        });
    }
    let mut all = 0;
    let mut streams = Vec::new();
    while let Some(outcome) = writing.join_next().await {
        let (taken, stream) = outcome??;
        all += taken;
        streams.push(stream);
    }
    say(&format!("taken {all}"));
    input().next_line().await?;
    Ok(())
}

/// Sends `bytes` of the pattern, ends its half, and says what the server counted.
pub async fn count(to: SocketAddr, bytes: u64) -> Outcome<()> {
    let mut stream = open(to).await?;
    stream.write_all(b"count\n").await?;
    let mut sent = 0;
    while sent < bytes {
        let until = bytes.min(sent + CHUNK as u64);
        let chunk: Vec<u8> = (sent..until).map(pattern).collect();
        timeout(PATIENCE, stream.write_all(&chunk)).await??;
        sent = until;
    }
    stream.shutdown().await?;
    let mut line = String::new();
    timeout(PATIENCE, stream.read_line(&mut line)).await??;
    say(line.trim());
    Ok(())
}
