//! One request head, line by line, each byte looked at once however slowly it comes.

use memchr::{memchr, memchr2};

use super::{BodyLength, FramingError, HeadLimits};
use crate::limits::Exceeded;

/// What is known of a head so far.
#[derive(Debug, Default)]
pub(super) struct Head {
    /// Where the line begins that is being read.
    line: usize,
    /// Up to here there is no LF left to find.
    scanned: usize,
    lines: usize,
    old_version: bool,
    length: Option<u64>,
    chunked: bool,
    host: bool,
    upgrade: bool,
}

/// What framing needs to know of a whole head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) body: BodyLength,
    pub(super) upgrade: bool,
}

const fn malformed<T>(reason: &'static str) -> Result<T, FramingError> {
    Err(FramingError::Malformed(reason))
}

impl Head {
    /// Looks at the bytes from the beginning of the head. `None`: its end is not there yet.
    pub(super) fn scan(
        &mut self,
        bytes: &[u8],
        limits: HeadLimits,
    ) -> Result<Option<(usize, Facts)>, FramingError> {
        while let Some(found) = bytes.get(self.scanned..).and_then(|rest| memchr(b'\n', rest)) {
            let line_feed = self.scanned + found;
            self.scanned = line_feed + 1;
            let line = bytes.get(self.line..line_feed).unwrap_or_default();
            let Some((b'\r', line)) = line.split_last() else {
                return malformed("bare LF in the request head");
            };
            let first = self.line;
            self.line = self.scanned;
            if self.scanned > limits.bytes {
                return Err(FramingError::Limit(Exceeded::HeadBytes));
            }
            if memchr2(b'\r', 0, line).is_some() {
                return malformed("bare CR or NUL in the request head");
            }
            if line.is_empty() {
                if self.lines > 0 {
                    return Ok(Some((self.scanned, self.facts()?)));
                }
                // One empty line before a request line is let pass (RFC 9112 §2.2), not more.
                if first > 0 {
                    return malformed("empty lines before the request line");
                }
                continue;
            }
            self.lines += 1;
            match self.lines {
                1 => self.request_line(line)?,
                n if n > limits.count + 1 => {
                    return Err(FramingError::Limit(Exceeded::HeaderCount));
                }
                _ => self.header_line(line)?,
            }
        }
        self.scanned = bytes.len();
        if bytes.len() > limits.bytes {
            return Err(FramingError::Limit(Exceeded::HeadBytes));
        }
        self.check_beginning(bytes)?;
        Ok(None)
    }

    /// Garbage is refused with its first byte: no caller holds us waiting for the end of no head.
    fn check_beginning(&self, bytes: &[u8]) -> Result<(), FramingError> {
        match (self.lines, bytes.get(self.line..)) {
            (0, Some([first, ..])) if !is_token(*first) && *first != b'\r' => malformed("no request line"),
            _ => Ok(()),
        }
    }

    /// `method SP request-target SP HTTP-version` (RFC 9112 §3), with single spaces.
    fn request_line(&mut self, line: &[u8]) -> Result<(), FramingError> {
        let mut words = line.split(|byte| *byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return malformed("the request line is not method, target and version");
        };
        if method.is_empty() || !method.iter().copied().all(is_token) {
            return malformed("the method is not a token");
        }
        if target.is_empty() || memchr2(b'\t', 0x7f, target).is_some() {
            return malformed("the request target is not valid");
        }
        if method == b"CONNECT" {
            return malformed("CONNECT is not served");
        }
        match version {
            b"HTTP/1.1" => {}
            b"HTTP/1.0" => self.old_version = true,
            _ => return malformed("the HTTP version is not 1.0 or 1.1"),
        }
        Ok(())
    }

    fn header_line(&mut self, line: &[u8]) -> Result<(), FramingError> {
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return malformed("obsolete line folding");
        }
        let Some(colon) = memchr(b':', line) else {
            return malformed("a header line without a colon");
        };
        let (name, value) = line.split_at_checked(colon).unwrap_or_default();
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        match name.last() {
            None => return malformed("a header without a name"),
            Some(b' ' | b'\t') => return malformed("whitespace before a header's colon"),
            Some(_) => {}
        }
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.host(),
            7 if name.eq_ignore_ascii_case(b"upgrade") => {
                self.upgrade = true;
                Ok(())
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => self.content_length(value),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.transfer_encoding(value),
            _ => Ok(()),
        }
    }

    fn host(&mut self) -> Result<(), FramingError> {
        if self.host {
            return malformed("several Host headers");
        }
        self.host = true;
        Ok(())
    }

    /// Digits only; one header, one value (RFC 9112 §6.3 point 5 lets a server refuse the rest).
    fn content_length(&mut self, value: &[u8]) -> Result<(), FramingError> {
        if self.length.is_some() {
            return malformed("several Content-Length headers");
        }
        if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
            return malformed("Content-Length is not a number");
        }
        let text = std::str::from_utf8(value).unwrap_or_default();
        // Beyond 63 bits somebody's number is negative; the codec has no words for it either.
        let Some(length) = text.parse().ok().filter(|length| *length <= i64::MAX.unsigned_abs()) else {
            return malformed("Content-Length is too large");
        };
        self.length = Some(length);
        Ok(())
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), FramingError> {
        if self.chunked {
            return malformed("several Transfer-Encoding headers");
        }
        if !value.eq_ignore_ascii_case(b"chunked") {
            return malformed("Transfer-Encoding is not chunked");
        }
        self.chunked = true;
        Ok(())
    }

    fn facts(&self) -> Result<Facts, FramingError> {
        let body = match (self.chunked, self.length) {
            (true, Some(_)) => return malformed("Content-Length and Transfer-Encoding"),
            (true, None) if self.old_version => {
                return malformed("Transfer-Encoding in HTTP/1.0");
            }
            (true, None) => BodyLength::Chunked,
            (false, length) => BodyLength::Exactly(length.unwrap_or(0)),
        };
        Ok(Facts { body, upgrade: self.upgrade })
    }
}

/// RFC 9110 §5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
