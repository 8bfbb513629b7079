//! A fuzzer's bytes as numbers and texts: past the end everything is zero and empty.

/// Longest text that one edit takes.
const TEXT: usize = 255;

/// Reads from the front.
#[derive(Debug)]
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// One byte, or `None` at the end.
    pub(crate) fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.next().unwrap_or(0)
    }

    pub(crate) fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// So many bytes as the next byte says, or what is left.
    pub(crate) fn text(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(TEXT).min(self.0.len());
        let (text, rest) = self.0.split_at_checked(length).unwrap_or_default();
        self.0 = rest;
        text
    }

    /// All that is left.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }
}
