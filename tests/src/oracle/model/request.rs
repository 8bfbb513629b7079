//! A request as a description, and its bytes.

use super::keys::Ring;
use super::token::Token;

/// The version that a request is sent in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Http {
    /// HTTP/1.0
    V10,
    /// HTTP/1.1
    V11,
    /// HTTP/2 with prior knowledge.
    V2,
}

/// A part of a text.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    /// Bytes as they are.
    Raw(Vec<u8>),
    /// A token.
    Token(Box<Token>),
}

/// Bytes with tokens among them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Text(pub Vec<Piece>);

impl Text {
    /// Bytes without tokens.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self(vec![Piece::Raw(bytes.into())])
    }

    /// A token behind some bytes.
    pub fn token(before: &str, token: Token) -> Self {
        Self(vec![Piece::Raw(before.into()), Piece::Token(Box::new(token))])
    }

    /// Adds bytes.
    pub fn push(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        match self.0.last_mut() {
            Some(Piece::Raw(raw)) => raw.extend_from_slice(bytes),
            _ => self.0.push(Piece::Raw(bytes.to_vec())),
        }
    }

    /// The whole.
    #[must_use]
    pub fn bytes(&self, ring: &Signed<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        for piece in &self.0 {
            match piece {
                Piece::Raw(raw) => bytes.extend_from_slice(raw),
                Piece::Token(token) => bytes.extend_from_slice(ring.text(token).as_bytes()),
            }
        }
        bytes
    }

    /// The bytes beside tokens.
    #[must_use]
    pub fn plain(&self) -> Vec<u8> {
        let raw = self.0.iter().filter_map(|piece| match piece {
            Piece::Raw(raw) => Some(raw.as_slice()),
            Piece::Token(_) => None,
        });
        raw.collect::<Vec<_>>().concat()
    }

    /// The tokens.
    pub fn tokens(&self) -> impl Iterator<Item = &Token> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Raw(_) => None,
            Piece::Token(token) => Some(token.as_ref()),
        })
    }
}

/// Signs each token once: both proxies are sent the same bytes.
pub struct Signed<'a> {
    ring: &'a Ring,
    done: std::sync::Mutex<std::collections::HashMap<String, String>>,
}

impl<'a> Signed<'a> {
    /// Nothing signed yet.
    #[must_use]
    pub fn new(ring: &'a Ring) -> Self {
        Self { ring, done: std::sync::Mutex::default() }
    }

    /// The keys.
    #[must_use]
    pub fn ring(&self) -> &Ring {
        self.ring
    }

    fn text(&self, token: &Token) -> String {
        let name = format!("{token:?}");
        let mut done = self.done.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        done.entry(name).or_insert_with(|| token.text(self.ring)).clone()
    }
}

/// A request's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// None.
    None,
    /// With a `content-length`.
    Length(Vec<u8>),
    /// In chunks; without a length over HTTP/2.
    Chunked(Vec<u8>),
}

/// A request.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The version.
    pub http: Http,
    /// The method, as it is sent.
    pub method: Vec<u8>,
    /// The request target, as it is sent.
    pub target: Text,
    /// `host` over HTTP/1, `:authority` over HTTP/2; none where `None`.
    pub authority: Option<Vec<u8>>,
    /// All other headers.
    pub headers: Vec<(String, Text)>,
    /// The body.
    pub body: Body,
}

impl Request {
    /// `GET /` over HTTP/1.1.
    #[must_use]
    pub fn simple() -> Self {
        Self {
            http: Http::V11,
            method: b"GET".to_vec(),
            target: Text::raw("/"),
            authority: Some(b"h.example".to_vec()),
            headers: Vec::new(),
            body: Body::None,
        }
    }

    /// The values of a header, whatever the case of its name.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Text> {
        self.headers.iter().filter(move |(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Every token in it.
    pub fn tokens(&self) -> impl Iterator<Item = &Token> {
        self.target.tokens().chain(self.headers.iter().flat_map(|(_, value)| value.tokens()))
    }

    /// The path and the query without tokens, and without the fragment.
    #[must_use]
    pub fn path_and_query(&self) -> (Vec<u8>, Option<Vec<u8>>) {
        let plain = self.target.plain();
        let whole = plain.split(|byte| *byte == b'#').next().unwrap_or_default();
        match whole.iter().position(|byte| *byte == b'?') {
            Some(at) => (whole[..at].to_vec(), Some(whole[at + 1..].to_vec())),
            None => (whole.to_vec(), None),
        }
    }

    /// Its bytes over HTTP/1.
    #[must_use]
    pub fn http1(&self, signed: &Signed<'_>) -> Vec<u8> {
        let mut bytes = self.method.clone();
        bytes.push(b' ');
        bytes.extend_from_slice(&self.target.bytes(signed));
        let version: &[u8] = if self.http == Http::V10 { b" HTTP/1.0\r\n" } else { b" HTTP/1.1\r\n" };
        bytes.extend_from_slice(version);
        if let Some(authority) = &self.authority {
            line(&mut bytes, b"host", authority);
        }
        for (name, value) in &self.headers {
            line(&mut bytes, name.as_bytes(), &value.bytes(signed));
        }
        match &self.body {
            Body::None => bytes.extend_from_slice(b"\r\n"),
            Body::Length(body) => {
                line(&mut bytes, b"content-length", body.len().to_string().as_bytes());
                bytes.extend_from_slice(b"\r\n");
                bytes.extend_from_slice(body);
            }
            Body::Chunked(body) => {
                line(&mut bytes, b"transfer-encoding", b"chunked");
                bytes.extend_from_slice(b"\r\n");
                if !body.is_empty() {
                    bytes.extend_from_slice(format!("{:x}\r\n", body.len()).as_bytes());
                    bytes.extend_from_slice(body);
                    bytes.extend_from_slice(b"\r\n");
                }
                bytes.extend_from_slice(b"0\r\n\r\n");
            }
        }
        bytes
    }

    /// Its header fields over HTTP/2, in their order.
    #[must_use]
    pub fn http2(&self, signed: &Signed<'_>) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut fields =
            vec![(b":method".to_vec(), self.method.clone()), (b":scheme".to_vec(), b"http".to_vec())];
        if let Some(authority) = &self.authority {
            fields.push((b":authority".to_vec(), authority.clone()));
        }
        fields.push((b":path".to_vec(), self.target.bytes(signed)));
        for (name, value) in &self.headers {
            fields.push((name.to_ascii_lowercase().into_bytes(), value.bytes(signed)));
        }
        if let Body::Length(body) = &self.body {
            fields.push((b"content-length".to_vec(), body.len().to_string().into_bytes()));
        }
        fields
    }
}

fn line(bytes: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    bytes.extend_from_slice(name);
    bytes.extend_from_slice(b": ");
    bytes.extend_from_slice(value);
    bytes.extend_from_slice(b"\r\n");
}
