//! The attacker over HTTP/2: frames and header blocks by hand (RFC 9113 section 4, RFC 7541), since
//! no library would send what is sent here.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::corpus::{Line, own};

/// What is waited for longer than this does not come.
const LIMIT: Duration = Duration::from_secs(60);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// What became of the stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Told {
    /// Status and body.
    Answer(u16, String),
    /// The stream was reset, or the connection ended.
    Reset,
}

/// Sends one request on a connection of its own.
///
/// # Panics
/// When nothing comes of it.
pub async fn say(address: SocketAddr, lines: &[Line], number: usize) -> Told {
    let mut bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    bytes.extend(frames(lines, number));
    let mut socket = TcpStream::connect(address).await.unwrap();
    let _ = socket.write_all(&bytes).await;
    timeout(LIMIT, listen(&mut socket)).await.unwrap_or_else(|_| panic!("nothing comes of {lines:?}"))
}

async fn listen(socket: &mut TcpStream) -> Told {
    let (mut status, mut body) = (0, Vec::new());
    loop {
        let mut head = [0; 9];
        if socket.read_exact(&mut head).await.is_err() {
            return Told::Reset;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        if socket.read_exact(&mut payload).await.is_err() {
            return Told::Reset;
        }
        let [kind, flags] = [head[3], head[4]];
        match kind {
            HEADERS => status = read_status(&payload),
            DATA => body.extend(payload),
            RST_STREAM | GOAWAY => return Told::Reset,
            _ => continue,
        }
        if flags & END_STREAM != 0 {
            return Told::Answer(status, String::from_utf8_lossy(&body).into_owned());
        }
    }
}

/// The lines as frames of stream 1.
fn frames(lines: &[Line], number: usize) -> Vec<u8> {
    let mut parts: Vec<(u8, Vec<u8>)> = vec![(HEADERS, Vec::new())];
    for line in lines.iter().filter(|line| !line.bytes.is_empty()) {
        let line = own(&line.bytes, number);
        if line == b"@headers" {
            parts.push((HEADERS, Vec::new()));
        } else if line == b"@end" {
            parts.push((DATA, Vec::new()));
        } else if let Some(data) = line.strip_prefix(b"@data ") {
            parts.push((DATA, data.to_vec()));
        } else {
            let at = line.windows(3).position(|window| window == b" = ").expect("name = value");
            parts.last_mut().unwrap().1.extend(field(&line[..at], &line[at + 3..]));
        }
    }
    let last = parts.len() - 1;
    let frame = |(at, (kind, payload)): (usize, &(u8, Vec<u8>))| {
        let ends = if at == last { END_STREAM } else { 0 };
        frame(*kind, ends | if *kind == HEADERS { END_HEADERS } else { 0 }, 1, payload)
    };
    parts.iter().enumerate().flat_map(frame).collect()
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A literal that is never indexed, with a new name, without Huffman coding (RFC 7541 section 6.2.3).
fn field(name: &[u8], value: &[u8]) -> Vec<u8> {
    [&[0x10], &*string(name), &*string(value)].concat()
}

fn string(bytes: &[u8]) -> Vec<u8> {
    const PREFIX: usize = 0x7f;
    let mut all = Vec::new();
    match bytes.len().checked_sub(PREFIX) {
        None => all.push(u8::try_from(bytes.len()).unwrap()),
        Some(mut rest) => {
            all.push(0x7f);
            while rest >= 0x80 {
                all.push(u8::try_from(rest & 0x7f).unwrap() | 0x80);
                rest >>= 7;
            }
            all.push(u8::try_from(rest).unwrap());
        }
    }
    all.extend_from_slice(bytes);
    all
}

/// `:status`, which is a block's first field: indexed (RFC 7541 appendix A), or three digits as a
/// literal whose name is.
fn read_status(block: &[u8]) -> u16 {
    const STATIC: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    // What may come before: a change of the table's size.
    let block = if block[0] & 0xe0 == 0x20 { &block[1..] } else { block };
    let first = block[0];
    if first & 0x80 != 0 {
        return STATIC[usize::from(first & 0x7f) - 8];
    }
    let name = if first & 0x40 != 0 { first & 0x3f } else { first & 0x0f };
    assert!((8..=14).contains(&name), "{block:?} does not begin with a status");
    let (huffman, length) = (block[1] & 0x80 != 0, usize::from(block[1] & 0x7f));
    let value = &block[2..2 + length];
    let digits = if huffman { digits(value) } else { String::from_utf8(value.to_vec()).unwrap() };
    digits.parse().unwrap()
}

/// Huffman-coded digits (RFC 7541 appendix B): 0, 1 and 2 take five bits, the others six.
fn digits(bytes: &[u8]) -> String {
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)).collect();
    let number = |from: usize, count: usize| {
        bits.get(from..from + count).map(|bits| bits.iter().fold(0, |sum, bit| sum << 1 | bit))
    };
    let (mut text, mut at) = (String::new(), 0);
    while text.len() < 3 {
        let (digit, taken) = match (number(at, 5), number(at, 6)) {
            (Some(code @ 0..=2), _) => (code, 5),
            (_, Some(code @ 0b01_1001..=0b01_1111)) => (code - 0b01_1001 + 3, 6),
            _ => panic!("no digit: {bytes:?}"),
        };
        text.push(char::from(b'0' + digit));
        at += taken;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read() {
        assert_eq!(read_status(&[0x88]), 200);
        assert_eq!(read_status(&[0x20, 0x8c]), 400);
        // RFC 7541 appendix C.6.1: `302`.
        assert_eq!(read_status(&[0x48, 0x82, 0x64, 0x02]), 302);
        assert_eq!(read_status(&[0x08, 3, b'4', b'0', b'3']), 403);
    }

    #[test]
    fn long_strings_have_long_lengths() {
        assert_eq!(string(b"ab"), b"\x02ab");
        assert_eq!(string(&[b'a'; 1337])[..3], [0x7f, 0xba, 0x09]);
    }
}
