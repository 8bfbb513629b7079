#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;

const LIMITS: HeadLimits = HeadLimits { bytes: 1024, count: 8 };

/// Follows a whole stream, handed in by pieces of `step` bytes; gives the messages' byte counts.
fn follow(stream: &[u8], step: usize) -> Result<Vec<usize>, FramingError> {
    let mut framer = Framer::new(LIMITS);
    let (mut begin, mut seen, mut message, mut messages) = (0, 0, 0, Vec::new());
    while begin < stream.len() {
        let at_head = framer.at_head();
        let taken = if seen > begin { framer.take(&stream[begin..seen])? } else { 0 };
        if at_head && taken > 0 && message > 0 {
            messages.push(message);
            message = 0;
        }
        begin += taken;
        message += taken;
        if taken == 0 {
            if seen == stream.len() {
                break;
            }
            seen = (seen + step).min(stream.len());
        }
    }
    if message > 0 {
        messages.push(message);
    }
    Ok(messages)
}

fn refused(stream: &[u8]) -> FramingError {
    let mut found = None;
    for step in [1, 2, 3, 7, stream.len()] {
        match follow(stream, step) {
            Err(error) => {
                found = Some(error);
            }
            Ok(messages) => {
                panic!("{:?} passed as {messages:?} by {step}", String::from_utf8_lossy(stream))
            }
        }
    }
    found.unwrap()
}

#[test]
fn messages_are_told_apart_however_they_are_cut() {
    let get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    let chunked = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n";
    let stream = [&get[..], post, chunked, get].concat();
    let lengths = vec![get.len(), post.len(), chunked.len(), get.len()];
    for step in 1..stream.len() {
        assert_eq!(follow(&stream, step).unwrap(), lengths, "by {step}");
    }
}

#[test]
fn ambiguous_heads_are_refused() {
    let heads: &[&[u8]] = &[
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\ncontent-length: 5\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5 5\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775808\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
        b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\t: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\nX: 1\r\n\r\n",
        b"GET / HTTP/1.1\nHost: a\n\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\n",
        b"GET / HTTP/1.1\r\nHost: a\rX: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\x00b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
        b" GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
        b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/0.9\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.2\r\nHost: a\r\n\r\n",
        b"GET / http/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.10\r\nHost: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
    ];
    for head in heads {
        assert!(matches!(refused(head), FramingError::Malformed(_)));
    }
}

#[test]
fn chunk_tricks_are_refused() {
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let bodies: &[&[u8]] = &[
        b"5\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhelloX0\r\n\r\n",
        b"5\r\nhello\rX",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b" 5\r\nhello\r\n0\r\n\r\n",
        b"5 \r\nhello\r\n0\r\n\r\n",
        b"\r\n5\r\nhello",
        b";ext\r\n",
        b"5;a\nhello\r\n0\r\n\r\n",
        b"5;a\x00b\r\nhello\r\n0\r\n\r\n",
        b"5\rhello",
        b"10000000000000005\r\nhello",
        b"0\r\nContent-Length: 3\r\n\r\n",
        b"0\r\ntransfer-encoding: chunked\r\n\r\n",
        b"0\r\nHost: b\r\n\r\n",
        b"0\r\nX : 1\r\n\r\n",
        b"0\r\n X: 1\r\n\r\n",
        b"0\r\nno colon\r\n\r\n",
        b"0\r\nX: 1\n\r\n",
        b"0\r\nX: 1\rY\r\n\r\n",
        b"0\r\n\rX",
    ];
    for body in bodies {
        let stream = [&head[..], body].concat();
        assert!(matches!(refused(&stream), FramingError::Malformed(_)));
    }
    let endless = [&head[..], b"5;", &[b'x'; 2000]].concat();
    assert!(matches!(refused(&endless), FramingError::Malformed(_)));
    let endless = [&head[..], b"0\r\nX: ", &[b'x'; 9000]].concat();
    assert!(matches!(refused(&endless), FramingError::Malformed(_)));
}

#[test]
fn large_heads_are_refused_whether_or_not_they_end() {
    let whole = [b"GET / HTTP/1.1\r\nX: ", &[b'x'; 2000][..], b"\r\n\r\n"].concat();
    assert_eq!(refused(&whole), FramingError::Limit(Exceeded::HeadBytes));
    let endless = [b"GET /", &[b'x'; 2000][..]].concat();
    assert_eq!(refused(&endless), FramingError::Limit(Exceeded::HeadBytes));
    let many = [b"GET / HTTP/1.1\r\n", &b"a: b\r\n".repeat(9)[..], b"\r\n"].concat();
    assert_eq!(refused(&many), FramingError::Limit(Exceeded::HeaderCount));
}

#[test]
fn one_empty_line_before_a_request_is_let_pass() {
    assert_eq!(follow(b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 3).unwrap().len(), 1);
}

#[test]
fn lengths_and_cases_that_are_fine_pass() {
    for stream in [
        &b"POST / HTTP/1.1\r\nHost: a\r\nTRANSFER-ENCODING: Chunked\r\n\r\n00A;x=\"y\"\r\n0123456789\r\n000\r\n\r\n"[..],
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0003\r\n\r\nabc",
        b"GET / HTTP/1.0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3  \r\n\r\n\r\n\0",
    ] {
        assert_eq!(follow(stream, 1).unwrap(), vec![stream.len()]);
    }
}

#[test]
fn after_an_accepted_upgrade_everything_passes() {
    let mut framer = Framer::new(LIMITS);
    let head = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(framer.take(head).unwrap(), head.len());
    assert!(framer.upgrade_asked());
    framer.pass();
    assert_eq!(framer.take(b"\0\n\n\n").unwrap(), 4);
}

#[test]
fn no_bytes_make_it_panic_or_pass_more_than_there_is() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let alphabet: &[&[u8]] = &[
        b"GET / HTTP/1.1\r\n",
        b"Host: a\r\n",
        b"\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"5\r\nhello\r\n",
        b"0\r\n",
        b"\n",
        b"\r",
        b"\0",
        b"Content-Length: 3\r\n",
        b"abc",
        b" ",
        b":",
        b"ffffffffffffffff\r\n",
    ];
    for _ in 0..20_000 {
        let mut stream = Vec::new();
        for _ in 0..12 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            stream.extend_from_slice(alphabet[(seed % alphabet.len() as u64) as usize]);
        }
        let whole = follow(&stream, stream.len());
        // Which fault is named first may depend on how much is there; the verdict may not.
        let bytewise = follow(&stream, 1);
        assert_eq!(whole.ok(), bytewise.ok(), "{:?}", String::from_utf8_lossy(&stream));
    }
}
