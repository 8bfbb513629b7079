//! A chunked body (RFC 9112 §7.1), read strictly: hexadecimal digits, CRLF and nothing else.

use super::FramingError;

/// Bytes of chunk extensions in one body: they mean nothing to us, and are a way to send for ever.
const EXTENSION_BYTES: usize = 1024;
/// Bytes of trailers.
const TRAILER_BYTES: usize = 8 * 1024;
/// Hexadecimal digits of a chunk's size: 64 bits.
const SIZE_DIGITS: u8 = 16;

/// Where in a chunked body we are.
#[derive(Debug, Default)]
pub(super) struct Chunked {
    at: At,
    extensions: usize,
    trailers: Vec<u8>,
    trailer_bytes: usize,
}

#[derive(Debug, Clone, Copy)]
enum At {
    Size { digits: u8, size: u64 },
    Extension { size: u64 },
    SizeEnd { size: u64 },
    Data { left: u64 },
    DataReturn,
    DataEnd,
    Trailer,
    TrailerEnd,
}

impl Default for At {
    fn default() -> Self {
        Self::Size { digits: 0, size: 0 }
    }
}

const fn malformed<T>(reason: &'static str) -> Result<T, FramingError> {
    Err(FramingError::Malformed(reason))
}

impl Chunked {
    /// How many bytes belong to the body, and whether it ends with them.
    pub(super) fn scan(&mut self, bytes: &[u8]) -> Result<(usize, bool), FramingError> {
        let mut taken = 0;
        while let Some(byte) = bytes.get(taken).copied() {
            if let At::Data { left } = self.at {
                let here = u64::try_from(bytes.len() - taken).unwrap_or(u64::MAX).min(left);
                taken += usize::try_from(here).unwrap_or(0);
                let left = left - here;
                self.at = if left == 0 { At::DataReturn } else { At::Data { left } };
                continue;
            }
            taken += 1;
            if self.step(byte)? {
                return Ok((taken, true));
            }
        }
        Ok((taken, false))
    }

    /// One byte outside of chunk data; `true`: the body ends with it.
    fn step(&mut self, byte: u8) -> Result<bool, FramingError> {
        self.at = match (self.at, byte) {
            (At::Size { digits, size }, _) => self.size(digits, size, byte)?,
            (At::Extension { size }, b'\r') => At::SizeEnd { size },
            (At::Extension { size }, b'\t' | b' '..=b'~' | 0x80..) => {
                self.extensions += 1;
                if self.extensions > EXTENSION_BYTES {
                    return malformed("too many chunk extensions");
                }
                At::Extension { size }
            }
            (At::Extension { .. }, _) => return malformed("control character in a chunk extension"),
            (At::SizeEnd { size: 0 }, b'\n') => At::Trailer,
            (At::SizeEnd { size }, b'\n') => At::Data { left: size },
            (At::SizeEnd { .. }, _) => return malformed("bare CR after a chunk size"),
            (At::DataReturn, b'\r') => At::DataEnd,
            (At::DataReturn, _) => return malformed("chunk data without its CRLF"),
            (At::DataEnd, b'\n') => At::default(),
            (At::DataEnd, _) => return malformed("bare CR after chunk data"),
            (At::Trailer, _) => self.trailer(byte)?,
            (At::TrailerEnd, b'\n') if self.trailers.is_empty() => return Ok(true),
            (At::TrailerEnd, b'\n') => {
                self.check_trailer()?;
                self.trailers.clear();
                At::Trailer
            }
            (At::TrailerEnd, _) => return malformed("bare CR in a trailer"),
            // Data is skipped by `scan`.
            (At::Data { left }, _) => At::Data { left },
        };
        Ok(false)
    }

    fn size(&mut self, digits: u8, size: u64, byte: u8) -> Result<At, FramingError> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            b'\r' if digits > 0 => return Ok(At::SizeEnd { size }),
            b';' if digits > 0 => return Ok(At::Extension { size }),
            b'\n' => return malformed("bare LF after a chunk size"),
            _ => return malformed("the chunk size is not hexadecimal"),
        };
        if digits >= SIZE_DIGITS {
            return malformed("the chunk size is too large");
        }
        Ok(At::Size { digits: digits + 1, size: size << 4 | u64::from(digit) })
    }

    fn trailer(&mut self, byte: u8) -> Result<At, FramingError> {
        match byte {
            b'\r' => return Ok(At::TrailerEnd),
            b'\n' => return malformed("bare LF in a trailer"),
            0 => return malformed("NUL in a trailer"),
            _ => {}
        }
        self.trailer_bytes += 1;
        if self.trailer_bytes > TRAILER_BYTES {
            return malformed("the trailers are too large");
        }
        self.trailers.push(byte);
        Ok(At::Trailer)
    }

    /// A trailer is a header line, and says nothing about where this message ends or goes
    /// (RFC 9110 §6.5.1).
    fn check_trailer(&self) -> Result<(), FramingError> {
        let mut parts = self.trailers.splitn(2, |byte| *byte == b':');
        let (Some(name), Some(_)) = (parts.next(), parts.next()) else {
            return malformed("a trailer line without a colon");
        };
        if matches!(self.trailers.first(), Some(b' ' | b'\t' | b':')) {
            return malformed("obsolete line folding in a trailer");
        }
        if matches!(name.last(), Some(b' ' | b'\t')) {
            return malformed("whitespace before a trailer's colon");
        }
        let framing: [&[u8]; 3] = [b"content-length", b"transfer-encoding", b"host"];
        if framing.iter().any(|forbidden| name.eq_ignore_ascii_case(forbidden)) {
            return malformed("a trailer that changes the framing");
        }
        Ok(())
    }
}
