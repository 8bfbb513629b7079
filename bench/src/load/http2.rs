//! As much of HTTP/2 as a load generator needs: prior knowledge, requests without body, statuses.
//!
//! The header table of the peer's encoder is set to nothing (SETTINGS_HEADER_TABLE_SIZE, RFC 9113
//! section 6.5.2), so that `:status`, which comes first, can be read without a decoder's memory.

use std::collections::HashMap;
use std::time::Instant;

pub use super::frames::Broken;
use super::frames::{
    self, END_HEADERS, END_STREAM, Frame, Frames, HEADERS, SETTINGS, frame_head, setting, window_update,
};

/// The flow-control window of a connection is topped up when this much of it has been used.
const TOP_UP: u32 = 1 << 28;
/// One connection: streams under way, and what has to be written.
#[derive(Debug)]
pub struct Connection {
    next_stream: u32,
    open: HashMap<u32, (Instant, u16)>,
    frames: Frames,
    used: u32,
}

impl Connection {
    /// A connection whose preface is put into `out`.
    #[must_use]
    pub fn new(out: &mut Vec<u8>) -> Self {
        out.extend_from_slice(frames::PREFACE);
        frame_head(out, 18, SETTINGS, 0, 0);
        setting(out, 1, 0); // HEADER_TABLE_SIZE
        setting(out, 2, 0); // ENABLE_PUSH
        setting(out, 4, 0x7fff_ffff); // INITIAL_WINDOW_SIZE
        window_update(out, 0, 0x7fff_ffff - 65_535);
        Self { next_stream: 1, open: HashMap::new(), frames: Frames::default(), used: 0 }
    }

    /// How many requests are under way.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// Writes a request without body into `out`; `due` is what its latency counts from.
    pub fn send(&mut self, block: &[u8], due: Instant, out: &mut Vec<u8>) {
        frame_head(out, block.len(), HEADERS, END_STREAM | END_HEADERS, self.next_stream);
        out.extend_from_slice(block);
        self.open.insert(self.next_stream, (due, 0));
        self.next_stream += 2;
    }

    /// Takes in what has arrived: `answered` is told of each whole response, `out` gets what the
    /// protocol wants us to say.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn feed(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        mut answered: impl FnMut(u16, Instant),
    ) -> Result<(), Broken> {
        let mut split = std::mem::take(&mut self.frames);
        let fed = split.each(input, |frame| self.frame(frame, out, &mut answered));
        self.frames = split;
        fed
    }

    fn frame(
        &mut self,
        frame: Frame<'_>,
        out: &mut Vec<u8>,
        answered: &mut impl FnMut(u16, Instant),
    ) -> Result<(), Broken> {
        match frame.kind {
            frames::DATA => self.count(frame.payload.len(), out),
            HEADERS => self.headers(&frame)?,
            _ => frame.housekeeping(out)?,
        }
        if frame.ends()
            && let Some((due, status)) = self.open.remove(&frame.stream)
        {
            answered(status, due);
        }
        Ok(())
    }

    fn headers(&mut self, frame: &Frame<'_>) -> Result<(), Broken> {
        let Some((_, known)) = self.open.get_mut(&frame.stream) else { return Err(Broken::Frame) };
        if *known != 0 {
            return Ok(()); // trailers
        }
        let found = frame.block().and_then(status).ok_or(Broken::Frame)?;
        *known = if found < 200 { 0 } else { found };
        Ok(())
    }

    #[allow(clippy::cast_possible_truncation)]
    fn count(&mut self, bytes: usize, out: &mut Vec<u8>) {
        // A frame is 16 KiB at most.
        self.used += bytes as u32;
        if self.used >= TOP_UP {
            window_update(out, 0, self.used);
            self.used = 0;
        }
    }
}

/// A header block of literals that nobody indexes (RFC 7541 section 6.2.2), up to where a field of
/// the given name in the static table begins its value.
#[must_use]
pub fn get_block(authority: &str, path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86]; // :method GET, :scheme http
    literal(&mut block, 4, path.as_bytes());
    literal(&mut block, 1, authority.as_bytes());
    block
}

/// Adds `authorization: Bearer TOKEN` to a block.
pub fn add_bearer(block: &mut Vec<u8>, token: &[u8]) {
    const BEARER: &[u8] = b"Bearer ";
    block.extend_from_slice(&[0x0f, 23 - 15]);
    number(block, BEARER.len() + token.len());
    block.extend_from_slice(BEARER);
    block.extend_from_slice(token);
}

pub(super) fn literal(block: &mut Vec<u8>, name: u8, value: &[u8]) {
    block.push(name);
    number(block, value.len());
    block.extend_from_slice(value);
}

/// A length with a 7-bit prefix, not Huffman coded (RFC 7541 section 5.1).
#[allow(clippy::cast_possible_truncation)]
fn number(block: &mut Vec<u8>, mut value: usize) {
    if value < 127 {
        block.push(value as u8);
        return;
    }
    block.push(127);
    value -= 127;
    while value >= 128 {
        block.push(value as u8 & 0x7f | 0x80);
        value >>= 7;
    }
    block.push(value as u8);
}

/// `:status` at the front of a header block: an entry of the static table, or a literal with its name.
pub(super) fn status(mut block: &[u8]) -> Option<u16> {
    // Table size updates come first, where the encoder tells that it took our size.
    while let Some((first, rest)) = block.split_first()
        && first & 0xe0 == 0x20
    {
        let mut rest = rest;
        if first & 0x1f == 0x1f {
            let end = rest.iter().position(|byte| byte & 0x80 == 0)?;
            rest = rest.get(end + 1..)?;
        }
        block = rest;
    }
    let (first, rest) = block.split_first()?;
    match *first {
        0x88 => Some(200),
        0x89 => Some(204),
        0x8a => Some(206),
        0x8b => Some(304),
        0x8c => Some(400),
        0x8d => Some(404),
        0x8e => Some(500),
        // Names 8 to 14 of the static table are all `:status`.
        0x08..=0x0e | 0x18..=0x1e | 0x48..=0x4e => text_status(rest),
        _ => None,
    }
}

fn text_status(value: &[u8]) -> Option<u16> {
    let (length, rest) = value.split_first()?;
    let text = rest.get(..usize::from(length & 0x7f))?;
    if length & 0x80 == 0 {
        return std::str::from_utf8(text).ok()?.parse().ok();
    }
    (100..600).find(|status| huffman(*status) == text)
}

/// Three digits in HPACK's Huffman code (RFC 7541 appendix B): 0 to 2 have 5 bits, 3 to 9 have 6.
fn huffman(status: u16) -> Vec<u8> {
    let (mut bits, mut length) = (0_u32, 0_u32);
    for digit in [status / 100, status / 10 % 10, status % 10] {
        let (code, width) = if digit < 3 { (digit, 5) } else { (digit - 3 + 0x19, 6) };
        bits = bits << width | u32::from(code);
        length += width;
    }
    let padding = (8 - length % 8) % 8;
    bits = bits << padding | ((1 << padding) - 1);
    let bytes = bits.to_be_bytes();
    let used = (length + padding) / 8;
    bytes.get(4 - used as usize..).unwrap_or_default().to_vec()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_read_in_every_form() {
        assert_eq!(status(&[0x88]), Some(200));
        assert_eq!(status(&[0x20, 0x8d]), Some(404), "after a table size update");
        assert_eq!(status(&[0x3f, 0xe1, 0x1f, 0x88]), Some(200), "after a long one");
        assert_eq!(status(&[0x08, 3, b'4', b'0', b'3']), Some(403));
        assert_eq!(status(&[0x48, 0x82, 0x68, 0x01]), Some(401), "RFC 7541: 4 is 011010, 0 00000, 1 00001");
        assert_eq!(status(&[0x00, 1, b'x']), None);
        assert_eq!(status(&[]), None);
    }

    #[test]
    fn lengths_are_coded_as_in_the_rfc() {
        let mut block = Vec::new();
        number(&mut block, 126);
        number(&mut block, 127);
        number(&mut block, 1337);
        assert_eq!(block, [126, 127, 0, 127, 0xba, 0x09]);
    }

    #[test]
    fn responses_are_read_however_they_are_cut() {
        let mut out = Vec::new();
        let mut wire = Vec::new();
        frame_head(&mut wire, 0, SETTINGS, 0, 0);
        frame_head(&mut wire, 1, HEADERS, END_HEADERS, 1);
        wire.push(0x88);
        frame_head(&mut wire, 5, frames::DATA, END_STREAM, 1);
        wire.extend_from_slice(b"hello");
        for cut in 0..wire.len() {
            out.clear();
            let mut connection = Connection::new(&mut out);
            connection.send(&get_block("a", "/"), Instant::now(), &mut out);
            let mut seen = Vec::new();
            let (first, second) = wire.split_at(cut);
            connection.feed(first, &mut out, |status, _| seen.push(status)).unwrap();
            connection.feed(second, &mut out, |status, _| seen.push(status)).unwrap();
            assert_eq!((seen.as_slice(), connection.open()), ([200].as_slice(), 0), "cut at {cut}");
        }
    }
}
