//! What a TLS ClientHello asks for (RFC 8446 §4.1.2): the server name (RFC 6066 §3), and whether it is one
//! of the mesh's (ALPN, RFC 7301 §3.1). Nothing else is read.

/// What there is of a ClientHello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hello {
    /// All of it.
    Whole(Asked),
    /// Its beginning.
    Partial,
    /// It is none.
    Malformed,
}

/// What a client asks for as it begins TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The server name, in lower case.
    pub(crate) sni: Option<String>,
    /// It names a protocol of Istio's: the TLS is the mesh's own, not the application's.
    pub(crate) of_mesh: bool,
}

/// Istio's protocols (`mtlsHTTP10ALPN` and its like of istiod's listeners).
const OF_MESH: [&[u8]; 5] =
    [b"istio", b"istio-peer-exchange", b"istio-http/1.0", b"istio-http/1.1", b"istio-h2"];
/// Most records that it may be spread over.
const RECORDS: usize = 64;
/// Type and length of a handshake message.
const HEADER: usize = 4;

/// Reads a ClientHello out of TLS records.
pub(super) fn read(bytes: &[u8], most: usize) -> Hello {
    match whole(bytes) {
        Ok(Some(message)) => asked(&message).map_or(Hello::Malformed, Hello::Whole),
        Ok(None) if bytes.len() < most => Hello::Partial,
        Ok(None) | Err(Malformed) => Hello::Malformed,
    }
}

struct Malformed;

/// The message's body; `None`: not all of it is there. Nothing is copied before it is.
fn whole(bytes: &[u8]) -> Result<Option<Vec<u8>>, Malformed> {
    let (mut header, mut length) = (Vec::with_capacity(HEADER), 0);
    for (index, fragment) in fragments(bytes).enumerate() {
        let fragment = match fragment? {
            Some(_) if index == RECORDS => return Err(Malformed),
            Some(fragment) => fragment,
            None => return Ok(None),
        };
        header.extend(fragment.iter().take(HEADER - header.len()));
        length += fragment.len();
        let Some(wanted) = wanted(&header)? else { continue };
        if length >= wanted {
            let mut message = Vec::with_capacity(length);
            for fragment in fragments(bytes).take(index + 1) {
                message.extend_from_slice(fragment?.unwrap_or_default());
            }
            return Ok(message.get(HEADER..wanted).map(<[u8]>::to_vec));
        }
    }
    Ok(None)
}

/// How long the message is by its header; `None`: the header is not all there.
fn wanted(header: &[u8]) -> Result<Option<usize>, Malformed> {
    match header {
        [1, high, middle, low] => {
            let length = u32::from_be_bytes([0, *high, *middle, *low]);
            usize::try_from(length).map(|length| Some(length + HEADER)).map_err(|_| Malformed)
        }
        [] | [1, ..] => Ok(None),
        _ => Err(Malformed),
    }
}

/// The records' contents, and then for ever `None`: the next one is not all there.
fn fragments(bytes: &[u8]) -> impl Iterator<Item = Result<Option<&[u8]>, Malformed>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (high, low, tail) = match rest {
            [22, 3, _, high, low, tail @ ..] => (high, low, tail),
            [] | [22] | [22, 3, ..] => return Some(Ok(None)),
            _ => return Some(Err(Malformed)),
        };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if length == 0 {
            return Some(Err(Malformed));
        }
        let Some((fragment, after)) = tail.split_at_checked(length) else { return Some(Ok(None)) };
        rest = after;
        Some(Ok(Some(fragment)))
    })
}

/// `None`: malformed.
fn asked(body: &[u8]) -> Option<Asked> {
    let mut body = Reader(body);
    body.take(2 + 32)?;
    body.vector8()?;
    body.vector16()?;
    body.vector8()?;
    let mut asked = Asked::default();
    if body.0.is_empty() {
        return Some(asked);
    }
    let mut extensions = Reader(body.vector16()?);
    let (mut named, mut listed) = (false, false);
    while !extensions.0.is_empty() {
        let kind = extensions.number16()?;
        let content = extensions.vector16()?;
        // No extension comes twice (RFC 8446 §4.2): who read the other one would read something else.
        match kind {
            0 if named => return None,
            0 => (named, asked.sni) = (true, server_name(content)?),
            16 if listed => return None,
            16 => (listed, asked.of_mesh) = (true, names_mesh(content)?),
            _ => {}
        }
    }
    Some(asked)
}

fn server_name(content: &[u8]) -> Option<Option<String>> {
    let mut names = Reader(Reader(content).vector16()?);
    let kind = names.take(1)?;
    let name = names.vector16()?;
    (kind == [0]).then(|| std::str::from_utf8(name).ok().map(str::to_ascii_lowercase))
}

fn names_mesh(content: &[u8]) -> Option<bool> {
    let mut protocols = Reader(Reader(content).vector16()?);
    let mut found = false;
    while !protocols.0.is_empty() {
        found |= OF_MESH.contains(&protocols.vector8()?);
    }
    Some(found)
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
