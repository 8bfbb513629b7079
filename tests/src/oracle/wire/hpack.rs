//! Header compression as far as a client needs it that allows no dynamic table (RFC 7541).

use super::WireError;

/// Appendix A: the names, and the values that the indexed form can mean in an answer.
const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// Appendix B: how many bits each byte's code has. The code is canonical, so this is all of it.
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28,
    28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6,
    6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7,
    8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7,
    15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24,
    23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23,
    23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26,
    26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20,
    21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27,
    27, 27, 26,
];

/// The longest code is 30 bits.
const LONGEST: u8 = 30;

/// A field in the plainest form there is: literal, not to be indexed, no Huffman code.
pub(super) fn encode(block: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    block.push(0);
    for text in [name, value] {
        number(block, text.len());
        block.extend_from_slice(text);
    }
}

/// A number with a prefix of seven bits (§5.1).
fn number(block: &mut Vec<u8>, mut number: usize) {
    const PREFIX: usize = 127;
    if number < PREFIX {
        block.push(low_byte(number));
        return;
    }
    block.push(low_byte(PREFIX));
    number -= PREFIX;
    while number >= 128 {
        block.push(low_byte(number % 128) | 128);
        number /= 128;
    }
    block.push(low_byte(number));
}

fn low_byte(number: usize) -> u8 {
    number.to_le_bytes()[0]
}

/// The fields of a block.
pub(super) fn decode(block: &[u8]) -> Result<Vec<(String, Vec<u8>)>, WireError> {
    let mut reader = Reader { rest: block };
    let mut fields = Vec::new();
    while let Some(first) = reader.rest.first().copied() {
        if first & 0x80 != 0 {
            let (name, value) = entry(reader.number(7)?)?;
            fields.push((name.to_owned(), value.as_bytes().to_vec()));
        } else if first & 0xe0 == 0x20 {
            reader.number(5)?;
        } else {
            let index = reader.number(if first & 0x40 != 0 { 6 } else { 4 })?;
            let name = match index {
                0 => String::from_utf8_lossy(&reader.text()?).into_owned(),
                index => entry(index)?.0.to_owned(),
            };
            fields.push((name, reader.text()?));
        }
    }
    Ok(fields)
}

fn entry(index: usize) -> Result<(&'static str, &'static str), WireError> {
    index.checked_sub(1).and_then(|at| STATIC.get(at)).copied().ok_or_else(broken)
}

fn broken() -> WireError {
    WireError::Broken("a header block that cannot be read".to_owned())
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn byte(&mut self) -> Result<u8, WireError> {
        let (first, rest) = self.rest.split_first().ok_or_else(broken)?;
        self.rest = rest;
        Ok(*first)
    }

    fn number(&mut self, bits: u32) -> Result<usize, WireError> {
        let full = (1_usize << bits) - 1;
        let mut number = usize::from(self.byte()?) & full;
        let mut shift = 0;
        while number >= full {
            let byte = self.byte()?;
            let part = usize::from(byte & 127).checked_shl(shift).ok_or_else(broken)?;
            number = number.checked_add(part).ok_or_else(broken)?;
            shift += 7;
            if byte & 128 == 0 {
                break;
            }
        }
        Ok(number)
    }

    fn text(&mut self) -> Result<Vec<u8>, WireError> {
        let coded = self.rest.first().is_some_and(|byte| byte & 0x80 != 0);
        let length = self.number(7)?;
        let (text, rest) = self.rest.split_at_checked(length).ok_or_else(broken)?;
        self.rest = rest;
        if coded { huffman(text) } else { Ok(text.to_vec()) }
    }
}

/// The bytes of each length of code, in order.
fn by_length() -> &'static [Vec<u8>] {
    static BYTES: std::sync::OnceLock<Vec<Vec<u8>>> = std::sync::OnceLock::new();
    BYTES.get_or_init(|| {
        let of = |length| (0_u8..=255).filter(|byte| LENGTHS[usize::from(*byte)] == length).collect();
        (1..=LONGEST).map(of).collect()
    })
}

/// Reads bit by bit: within one length, codes count up with the bytes that they stand for.
fn huffman(coded: &[u8]) -> Result<Vec<u8>, WireError> {
    let mut text = Vec::new();
    let mut bits = coded.iter().flat_map(|byte| (0..8).rev().map(move |at| u32::from(byte >> at & 1)));
    'text: loop {
        let (mut code, mut first) = (0_u32, 0_u32);
        for of_length in by_length() {
            let Some(bit) = bits.next() else { break 'text };
            code = code << 1 | bit;
            first <<= 1;
            let count = u32::try_from(of_length.len()).unwrap_or(0);
            if let Some(at) = code.checked_sub(first).filter(|at| *at < count) {
                text.push(*of_length.get(usize::try_from(at).unwrap_or(0)).ok_or_else(broken)?);
                continue 'text;
            }
            first += count;
        }
        return Err(broken());
    }
    Ok(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// RFC 7541, C.6.1: an answer with Huffman codes.
    #[test]
    fn the_rfc_s_example_is_read() {
        let block = [
            0x48, 0x82, 0x64, 0x02, 0x58, 0x85, 0xae, 0xc3, 0x77, 0x1a, 0x4b, 0x61, 0x96, 0xd0, 0x7a, 0xbe,
            0x94, 0x10, 0x54, 0xd4, 0x44, 0xa8, 0x20, 0x05, 0x95, 0x04, 0x0b, 0x81, 0x66, 0xe0, 0x82, 0xa6,
            0x2d, 0x1b, 0xff, 0x6e, 0x91, 0x9d, 0x29, 0xad, 0x17, 0x18, 0x63, 0xc7, 0x8f, 0x0b, 0x97, 0xc8,
            0xe9, 0xae, 0x82, 0xae, 0x43, 0xd3,
        ];
        let fields = decode(&block).unwrap();
        let text = |at: usize| (fields[at].0.as_str(), String::from_utf8(fields[at].1.clone()).unwrap());
        assert_eq!(text(0), (":status", "302".to_owned()));
        assert_eq!(text(1), ("cache-control", "private".to_owned()));
        assert_eq!(text(2), ("date", "Mon, 21 Oct 2013 20:13:21 GMT".to_owned()));
        assert_eq!(text(3), ("location", "https://www.example.com".to_owned()));
    }

    #[test]
    fn what_is_written_is_read() {
        let mut block = Vec::new();
        let long = vec![0xff; 70_000];
        encode(&mut block, b"x-a", &long);
        encode(&mut block, b":path", b"/");
        assert_eq!(decode(&block).unwrap(), [("x-a".to_owned(), long), (":path".to_owned(), b"/".to_vec())]);
        assert!(decode(&[0xff]).is_err() && decode(&[0x80]).is_err());
    }
}
