//! HTTP/2 connections: whatever frames come, no stream goes upstream unjudged.

use crate::{
    input::Input,
    request_head::{check_guarded, check_successes},
    wire::{Run, run},
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Most frames of a connection made by structure.
const FRAMES: usize = 128;
const METHODS: [&str; 8] = ["GET", "POST", "PUT", "HEAD", "OPTIONS", "CONNECT", "get", "PRI"];
const PATHS: [&str; 8] = [
    "/fhir/Patient/1",
    "/fhir/secret",
    "/fhir/x/../secret/%2e",
    "/fhir/Patient?name=x",
    "*",
    "",
    "http://fhir.example/fhir",
    "/fhir/Observation;x",
];

/// The first byte says whether the rest are frames as they are, or steps from which frames are made, and in
/// which pieces they arrive.
///
/// - Every request that reaches the upstream was judged and permitted, in the very form that is sent; none
///   more often than it was permitted.
/// - Every stream that is answered with success has had its upstream's answer, and its story.
/// - The answer's bytes are bounded by the client's.
pub fn h2_frames(data: &[u8]) {
    let mut input = Input::new(data);
    let how = input.byte();
    let mut bytes = PREFACE.to_vec();
    if how & 1 == 0 {
        bytes.extend_from_slice(input.rest());
    } else {
        // Settings first, as the codec wants it.
        frame(&mut bytes, 4, 0, 0, &[]);
        make(&mut bytes, &mut input);
    }
    let step = match how >> 1 {
        0 => bytes.len(),
        step => usize::from(step).max(bytes.len() / 256 + 1),
    };
    let Run { output, asked, told, seen } = run(bytes.chunks(step).map(<[u8]>::to_vec).collect());
    let mut permitted: Vec<(String, String)> =
        asked.iter().filter_map(|asked| asked.passes.clone()).collect();
    for seen in &seen {
        check_guarded(seen);
        let found =
            permitted.iter().position(|(method, target)| *method == seen.method && *target == seen.target);
        let Some(found) = found else { panic!("nobody permitted {seen:?}") };
        permitted.swap_remove(found);
    }
    check_successes(successes(&output), &told, &seen);
}

/// Response heads that begin with `:status: 200` (RFC 7541 appendix A, index 8).
pub(crate) fn successes(mut output: &[u8]) -> usize {
    let mut count = 0;
    while let Some((head, rest)) = output.split_first_chunk::<9>() {
        let [a, b, c, kind, flags, ..] = *head;
        let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(usize::MAX);
        let payload = rest.get(..length).unwrap_or(rest);
        let padded = flags & 0x08 != 0;
        assert!(!padded || kind != 1, "a padded answer");
        // A change of the table's size may come first.
        let status = payload.iter().find(|byte| **byte & 0xe0 != 0x20);
        count += usize::from(kind == 1 && status == Some(&0x88));
        output = rest.get(length..).unwrap_or_default();
    }
    count
}

fn frame(bytes: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    bytes.extend_from_slice(length.get(1..).unwrap_or_default());
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
}

fn make(bytes: &mut Vec<u8>, input: &mut Input<'_>) {
    for _ in 0..FRAMES {
        let Some(operation) = input.next() else { return };
        let stream = u32::from(input.byte() % 32);
        match operation % 16 {
            // A request, with or without a body, in one frame or in two.
            0..=5 => {
                let block = request(input);
                let ends = u8::from(operation % 2 == 0);
                if operation % 16 < 4 {
                    frame(bytes, 1, 0x04 | ends, stream * 2 + 1, &block);
                } else {
                    let (first, second) = block.split_at(block.len() / 2);
                    frame(bytes, 1, ends, stream * 2 + 1, first);
                    frame(bytes, 9, 0x04, stream * 2 + 1, second);
                }
            }
            6 => frame(bytes, 0, 1, stream * 2 + 1, input.text()),
            7 => frame(bytes, 0, 0, stream * 2 + 1, input.text()),
            8 => frame(bytes, 3, 0, stream * 2 + 1, &u32::from(input.byte()).to_be_bytes()),
            9 => frame(bytes, 8, 0, stream, &u32::from(input.word()).to_be_bytes()),
            10 => frame(bytes, 6, input.byte() & 1, 0, &[0; 8]),
            11 => {
                let (name, value) = (u16::from(input.byte() % 8), u32::from(input.word()));
                frame(bytes, 4, 0, 0, &[&name.to_be_bytes()[..], &value.to_be_bytes()[..]].concat());
            }
            12 => frame(bytes, 2, 0, stream * 2 + 1, &[0, 0, 0, input.byte(), 16]),
            // Trailers.
            13 => {
                let mut block = Vec::new();
                field(&mut block, input.text(), input.text());
                frame(bytes, 1, 0x05, stream * 2 + 1, &block);
            }
            14 => frame(bytes, 7, 0, 0, &[0, 0, 0, 0, 0, 0, 0, input.byte()]),
            // Any frame.
            _ => {
                let (kind, flags) = (input.byte() % 12, input.byte());
                frame(bytes, kind, flags, stream, input.text());
            }
        }
    }
}

/// A field block: pseudo-headers, mostly as they should be, and a few headers.
fn request(input: &mut Input<'_>) -> Vec<u8> {
    let (how, method, path) = (input.byte(), input.byte(), input.byte());
    let pick = |list: &[&'static str; 8], index: u8| list.get(usize::from(index % 8)).copied().unwrap_or("");
    let mut block = Vec::new();
    if how & 0x80 == 0 {
        field(&mut block, b":method", pick(&METHODS, method).as_bytes());
    }
    field(&mut block, b":scheme", if how & 0x40 == 0 { b"http" } else { b"https" });
    if how & 0x20 == 0 {
        field(&mut block, b":authority", b"fhir.example");
    }
    field(&mut block, b":path", pick(&PATHS, path).as_bytes());
    for _ in 0..how % 8 {
        let (name, value) = (input.text(), input.text());
        field(&mut block, name, value);
    }
    block
}

/// Literal, never indexed, not Huffman coded (RFC 7541 section 6.2.3).
fn field(block: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    block.push(0x10);
    for text in [name, value] {
        // Seven bits of length, more as a continuation (section 5.1).
        match u8::try_from(text.len()) {
            Ok(length @ ..127) => block.push(length),
            _ => {
                let rest = text.len() - 127;
                block.push(127);
                block.push(u8::try_from(rest % 128).unwrap_or(0) | 0x80);
                block.push(u8::try_from(rest / 128).unwrap_or(0));
            }
        }
        block.extend_from_slice(text);
    }
}
