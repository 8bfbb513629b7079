//! Messages and attributes, netlink(7): lengths count their own header, everything lies on multiples
//! of four.

use std::io;

use super::malformed;

const HEADER: usize = 16;
/// `NLMSG_ERROR`, which is also the acknowledgement, and `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `NLA_F_NESTED | NLA_F_NET_BYTEORDER`, which are no part of an attribute's kind.
const ATTRIBUTE_FLAGS: u16 = 0xc000;

/// What stands after the header.
#[derive(Default)]
pub(crate) struct Body(Vec<u8>);

impl Body {
    pub(crate) fn new(fixed: &[u8]) -> Self {
        let mut body = Self(fixed.to_vec());
        body.align();
        body
    }

    /// With one more attribute.
    pub(crate) fn with(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(value.len().saturating_add(4)).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.align();
        self
    }

    pub(crate) fn with_u32(self, kind: u16, value: u32) -> Self {
        self.with(kind, &value.to_ne_bytes())
    }

    fn align(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    pub(super) fn message(&self, kind: u16, flags: u16, sequence: u32) -> io::Result<Vec<u8>> {
        let length = u32::try_from(HEADER + self.0.len()).map_err(io::Error::other)?;
        let mut bytes = Vec::with_capacity(HEADER + self.0.len());
        bytes.extend_from_slice(&length.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&sequence.to_ne_bytes());
        bytes.extend_from_slice(&0u32.to_ne_bytes());
        bytes.extend_from_slice(&self.0);
        Ok(bytes)
    }
}

/// The header of an answer.
pub(super) struct Header {
    pub(super) kind: u16,
    pub(super) sequence: u32,
}

impl Header {
    /// Whether this is the last answer; the kernel's error where it is one.
    pub(super) fn end(&self, body: &[u8]) -> io::Result<bool> {
        if self.kind != ERROR && self.kind != DONE {
            return Ok(false);
        }
        match read_u32(body, 0).map(u32::cast_signed) {
            Some(code) if code < 0 => Err(io::Error::from_raw_os_error(code.saturating_neg())),
            None if self.kind == ERROR => Err(malformed("an error without a number")),
            _ => Ok(true),
        }
    }
}

/// The messages in one datagram.
pub(super) struct Messages<'a>(&'a [u8]);

impl<'a> Messages<'a> {
    pub(super) fn of(datagram: &'a [u8]) -> Self {
        Self(datagram)
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = io::Result<(Header, &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let parts = (read_u32(self.0, 0), read_u16(self.0, 4), read_u32(self.0, 8));
        let (Some(length), Some(kind), Some(sequence)) = parts else {
            self.0 = &[];
            return Some(Err(malformed("a cut header")));
        };
        let Some(body) = self.0.get(HEADER..length as usize) else {
            self.0 = &[];
            return Some(Err(malformed("a cut message")));
        };
        self.0 = self.0.get((length as usize).next_multiple_of(4)..).unwrap_or_default();
        Some(Ok((Header { kind, sequence }, body)))
    }
}

/// The attributes after a fixed part of this length; what is cut is left out.
pub(crate) fn attributes(body: &[u8], fixed: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = body.get(fixed.next_multiple_of(4)..).unwrap_or_default();
    std::iter::from_fn(move || {
        let length = usize::from(read_u16(rest, 0)?);
        let kind = read_u16(rest, 2)? & !ATTRIBUTE_FLAGS;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

pub(crate) fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

pub(crate) fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

pub(crate) fn read_u64(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn attributes_are_padded_and_read_back() {
        let body = Body::new(&[9; 4]).with(1, b"abc\0x").with_u32(2 | 0x8000, 7);
        let bytes = body.message(16, 0, 5).unwrap();
        let (header, body) = Messages::of(&bytes).next().unwrap().unwrap();
        assert_eq!((header.kind, header.sequence), (16, 5));
        let read: Vec<_> = attributes(body, 4).collect();
        assert_eq!(read, [(1, b"abc\0x".as_slice()), (2, 7u32.to_ne_bytes().as_slice())]);
    }

    #[test]
    fn cut_messages_are_errors_and_cut_attributes_are_left_out() {
        let bytes = Body::new(&[]).with(1, b"abcd").message(16, 0, 5).unwrap();
        assert!(Messages::of(&bytes[..10]).next().unwrap().is_err());
        assert!(Messages::of(&bytes[..20]).next().unwrap().is_err());
        let mut short = bytes.clone();
        short[..4].copy_from_slice(&8u32.to_ne_bytes());
        assert!(Messages::of(&short).next().unwrap().is_err());
        assert_eq!(attributes(&bytes[16..22], 0).count(), 0);
        assert_eq!(attributes(&[0; 8], 0).count(), 0);
    }

    #[test]
    fn the_kernels_errors_and_ends_are_told() {
        let error = (-libc::EEXIST).to_ne_bytes();
        let end = |kind, body: &[u8]| Header { kind, sequence: 0 }.end(body);
        assert_eq!(end(ERROR, &error).unwrap_err().raw_os_error(), Some(libc::EEXIST));
        assert!(end(ERROR, &[0; 4]).unwrap() && end(DONE, &[]).unwrap());
        assert!(!end(16, &error).unwrap());
        assert!(end(ERROR, &[]).is_err());
    }
}
