//! HTTP/1 connections: what the framing guard lets pass, what the codec reads, what is judged and what
//! reaches the upstream are one and the same.

use dataplane::serve::framing::{Framer, HeadLimits};
use observe::Record;

use crate::{
    input::Input,
    upstream::Seen,
    wire::{Chunks, Run, run},
    world::{self, Asked},
};

/// A message as the framing guard cuts it out of the stream.
pub(crate) struct Message<'a> {
    head: &'a [u8],
    /// Of a message that breaks: all that is left.
    body: &'a [u8],
    whole: bool,
}

/// The first byte says in which pieces the rest, a client's bytes, arrives.
///
/// - The engine is asked about no more heads than the guard has passed, about each in its turn and as it
///   stands in the bytes: same method, same target, same headers.
/// - The upstream sees the permitted requests in their order, in the very form that was judged, each with
///   the body that the client sent; nothing else, and nothing below `/fhir/secret`.
/// - Answers: one for each request, at most one more for what could not be read, and a bound on their bytes.
pub fn request_head(data: &[u8]) {
    let mut input = Input::new(data);
    let step = input.byte();
    let bytes = input.rest();
    if bytes.starts_with(b"PRI * HTTP/2") {
        return; // HTTP/2 by prior knowledge: the target `h2_frames`.
    }
    let Run { output, asked, told, seen } = run(pieces(bytes, step));
    let messages = cut(bytes);
    assert!(asked.len() <= messages.len(), "{} judged of {}: {asked:?}", asked.len(), messages.len());
    for (asked, message) in asked.iter().zip(&messages) {
        check_head(asked, message.head);
    }
    check_forwarded(&asked, &messages, &seen);
    check_answers(&output, &asked, &told, &seen);
}

/// All at once, or in pieces of so many bytes.
fn pieces(bytes: &[u8], step: u8) -> Vec<Vec<u8>> {
    match usize::from(step % 64) {
        0 => vec![bytes.to_vec()],
        // Each piece costs a task switch.
        step => bytes.chunks(step.max(bytes.len() / 256 + 1)).map(<[u8]>::to_vec).collect(),
    }
}

fn cut(bytes: &[u8]) -> Vec<Message<'_>> {
    let limits = world::limits();
    let mut framer = Framer::new(HeadLimits { bytes: limits.head_bytes, count: limits.header_count });
    let (mut messages, mut rest) = (Vec::new(), bytes);
    while let Ok(length @ 1..) = framer.take(rest) {
        let (head, behind) = rest.split_at_checked(length).expect("no more than there is");
        rest = behind;
        let (mut taken, mut sound) = (0, true);
        while !framer.at_head() && sound {
            match framer.take(rest.get(taken..).unwrap_or_default()) {
                Ok(0) | Err(_) => sound = false,
                Ok(length) => taken += length,
            }
        }
        if !sound {
            // Where it breaks depends on the pieces in which it came; of what is behind it nothing passes.
            messages.push(Message { head, body: rest, whole: false });
            break;
        }
        let (body, behind) = rest.split_at_checked(taken).expect("no more than there is");
        rest = behind;
        messages.push(Message { head, body, whole: true });
    }
    messages
}

/// The head in the plainest reading there is.
fn check_head(asked: &Asked, head: &[u8]) {
    let text: String = head.iter().map(|byte| char::from(*byte)).collect();
    let mut lines = text.split("\r\n").skip_while(|line| line.is_empty());
    let line = lines.next().unwrap_or_default();
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    assert_eq!(asked.method.as_str(), method, "{line:?}");
    let target = target.split('#').next().unwrap_or_default();
    // The type keeps bytes from 0x80 up as they are, and text is UTF-8.
    let raw: Vec<u8> = target.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect();
    let target = String::from_utf8_lossy(&raw);
    let read = asked.uri.to_string();
    let same = read == target || read.eq_ignore_ascii_case(&target);
    let same = same || read.eq_ignore_ascii_case(&format!("{target}/"));
    // An authority without a path gets its slash before the query.
    let same = same || read.replacen("/?", "?", 1).eq_ignore_ascii_case(&target);
    assert!(same, "read {read:?} of {line:?}");
    let mut written: Vec<(String, String)> = lines
        .filter(|line| !line.is_empty())
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()))
        .collect();
    let latin = |bytes: &[u8]| bytes.iter().map(|byte| char::from(*byte)).collect::<String>();
    let mut read: Vec<(String, String)> = asked
        .headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), latin(value.as_bytes())))
        .collect();
    written.sort();
    read.sort();
    assert_eq!(read, written, "headers of {line:?}");
}

pub(crate) fn check_forwarded(asked: &[Asked], messages: &[Message<'_>], seen: &[Seen]) {
    let mut permitted = asked.iter().zip(messages).filter_map(|(asked, message)| {
        let (method, target) = asked.passes.clone()?;
        Some((method, target, message))
    });
    for seen in seen {
        check_guarded(seen);
        // Between them may be some that found no upstream (gRPC).
        let next = permitted.find(|(method, target, _)| *method == seen.method && *target == seen.target);
        let Some((_, _, message)) = next else { panic!("nobody permitted {seen:?}") };
        let head = message.head.to_ascii_lowercase();
        let chunked = head.windows(20).any(|window| window == b"\r\ntransfer-encoding:");
        let sent = if chunked { Chunks::read(message.body).body } else { message.body.to_vec() };
        if seen.whole {
            assert!(message.whole, "a broken message went whole: {seen:?}");
            assert_eq!(seen.body, sent, "another body: {seen:?}");
        } else {
            assert!(sent.starts_with(&seen.body), "another body: {seen:?}");
        }
    }
}

/// No reading of the target leads below `/fhir/secret`.
pub(crate) fn check_guarded(seen: &Seen) {
    let path = seen.target.split('?').next().unwrap_or_default();
    let decoded = percent_encoding::percent_decode_str(path).decode_utf8_lossy().into_owned();
    let mut segments = Vec::new();
    for segment in decoded.split('/').filter(|segment| !segment.is_empty() && *segment != ".") {
        if segment == ".." {
            segments.pop();
        } else {
            segments.push(segment);
        }
    }
    let guarded = matches!(segments.as_slice(), ["fhir", secret, ..] if secret.starts_with("secret"));
    // `//` is no `/` for the policy; nor is it for a server (RFC 3986 section 3.3).
    assert!(!guarded || decoded.contains("//"), "denied, and forwarded: {seen:?}");
}

fn check_answers(output: &[u8], asked: &[Asked], told: &[Record], seen: &[Seen]) {
    let heads: Vec<bool> = asked.iter().map(|asked| asked.method == http::Method::HEAD).collect();
    let statuses = statuses(output, &heads);
    assert!(statuses.len() <= asked.len() + 1, "{} answers to {}", statuses.len(), asked.len());
    if statuses.len() > asked.len() {
        assert!(statuses.last().is_some_and(|status| (400..500).contains(status)), "{statuses:?}");
    }
    check_successes(statuses.iter().filter(|status| **status == 200).count(), told, seen);
}

/// So many answers with status 200: each has its story and, but for gRPC's own errors, which come with
/// that status too, its upstream's answer.
pub(crate) fn check_successes(fine: usize, told: &[Record], seen: &[Seen]) {
    let whole = seen.iter().filter(|seen| seen.whole).count();
    let told: Vec<&Record> = told.iter().filter(|told| told.status == Some(200)).collect();
    let grpc = told.iter().filter(|told| told.grpc_status.is_some()).count();
    assert!(fine <= told.len(), "{fine} successes, {} told", told.len());
    assert!(fine <= whole + grpc, "{fine} successes, {whole} forwarded, {grpc} of gRPC");
}

/// The final answers' statuses; interim ones are passed over. A cut answer ends the list.
fn statuses(mut output: &[u8], heads: &[bool]) -> Vec<u16> {
    let mut statuses = Vec::new();
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut headers);
        let Ok(parsed) = response.parse(output) else {
            panic!("no answer: {:?}", String::from_utf8_lossy(output));
        };
        let httparse::Status::Complete(length) = parsed else { return statuses };
        let status = response.code.unwrap_or_default();
        output = output.get(length..).unwrap_or_default();
        if (100..200).contains(&status) {
            continue;
        }
        let value = |name: &str| {
            let header = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
            header.map(|header| String::from_utf8_lossy(header.value).into_owned())
        };
        let head_only = heads.get(statuses.len()).copied().unwrap_or(false);
        statuses.push(status);
        let length = value("content-length").map_or(0, |length| length.parse().expect("a length"));
        if head_only {
            continue;
        }
        match output.get(length..) {
            Some(rest) => output = rest,
            None => return statuses,
        }
    }
}
