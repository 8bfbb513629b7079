//! The server name of a TLS ClientHello (RFC 8446 §4.1.2, RFC 6066 §3), of which nothing else is read.

/// What there is of a ClientHello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hello {
    /// All of it, and the name.
    Whole(Option<String>),
    /// Its beginning.
    Partial,
    /// It is none.
    Malformed,
}

/// Most records that it may be spread over.
const RECORDS: usize = 64;

/// Reads a ClientHello out of TLS records.
pub(super) fn read(bytes: &[u8], most: usize) -> Hello {
    let mut message = Vec::new();
    let mut rest = bytes;
    for _ in 0..RECORDS {
        if let Some(hello) = client_hello(&message) {
            return hello;
        }
        let [kind, major, _, high, low, tail @ ..] = rest else { return partial(bytes, most) };
        if (*kind, *major) != (22, 3) {
            return Hello::Malformed;
        }
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if length == 0 {
            return Hello::Malformed;
        }
        let Some((fragment, after)) = tail.split_at_checked(length) else { return partial(bytes, most) };
        message.extend_from_slice(fragment);
        rest = after;
    }
    Hello::Malformed
}

fn partial(bytes: &[u8], most: usize) -> Hello {
    if bytes.len() < most { Hello::Partial } else { Hello::Malformed }
}

/// `None`: not all of it is there.
fn client_hello(message: &[u8]) -> Option<Hello> {
    let [kind, length @ ..] = message else { return None };
    if *kind != 1 {
        return Some(Hello::Malformed);
    }
    let [high, middle, low, body @ ..] = length else { return None };
    let length = u32::from_be_bytes([0, *high, *middle, *low]);
    let body = body.get(..usize::try_from(length).ok()?)?;
    Some(server_name(body).map_or(Hello::Malformed, Hello::Whole))
}

/// `None`: malformed.
fn server_name(body: &[u8]) -> Option<Option<String>> {
    let mut body = Reader(body);
    body.take(2 + 32)?;
    body.vector8()?;
    body.vector16()?;
    body.vector8()?;
    if body.0.is_empty() {
        return Some(None);
    }
    let mut extensions = Reader(body.vector16()?);
    while !extensions.0.is_empty() {
        let kind = extensions.number16()?;
        let content = extensions.vector16()?;
        if kind == 0 {
            let mut names = Reader(Reader(content).vector16()?);
            let kind = names.take(1)?;
            let name = names.vector16()?;
            return (kind == [0]).then(|| std::str::from_utf8(name).ok().map(str::to_ascii_lowercase));
        }
    }
    Some(None)
}

/// Takes from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn vector8(&mut self) -> Option<&'a [u8]> {
        let [length] = self.take(1)? else { return None };
        self.take(usize::from(*length))
    }

    fn vector16(&mut self) -> Option<&'a [u8]> {
        let length = self.number16()?;
        self.take(usize::from(length))
    }
}
