//! The FHIR server behind every peer: fixed answers, served by the same loop that makes the load, so
//! that generator and upstream never fight for their core.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use super::http1::{self, Body};

/// Bytes of a Bundle, either way.
pub const BUNDLE_BYTES: usize = 1024 * 1024;
/// Bytes of a small resource, about.
const SMALL_BYTES: usize = 1024;

/// The answers, whole messages each.
#[derive(Debug, Clone)]
pub struct Documents {
    small: Arc<[u8]>,
    bundle: Arc<[u8]>,
    created: Arc<[u8]>,
    realm: Arc<[u8]>,
}

impl Documents {
    /// `realm` is what `/realms/…` answers: a Keycloak realm's description, in JSON.
    #[must_use]
    pub fn new(realm: &str) -> Self {
        Self {
            small: answer("200 OK", &patient(SMALL_BYTES)),
            bundle: answer("200 OK", &bundle(BUNDLE_BYTES)),
            created: answer("201 Created", r#"{"resourceType":"Bundle","type":"transaction-response"}"#),
            realm: answer("200 OK", realm),
        }
    }

    fn of(&self, start_line: &[u8]) -> &Arc<[u8]> {
        if start_line.starts_with(b"POST") {
            &self.created
        } else if start_line.starts_with(b"GET /realms/") {
            &self.realm
        } else if memchr::memmem::find(start_line, b"/Bundle").is_some() {
            &self.bundle
        } else {
            &self.small
        }
    }
}

/// A Patient of about `size` bytes.
#[must_use]
pub fn patient(size: usize) -> String {
    let start = r#"{"resourceType":"Patient","id":"p1","active":true,"name":[{"family":"Kovacs","given":["Alice"]}],"gender":"female","birthDate":"1970-01-01","text":{"status":"generated","div":"<div>"#;
    let end = "</div>\"}}";
    format!("{start}{}{end}", "x".repeat(size.saturating_sub(start.len() + end.len())))
}

/// A transaction Bundle of about `size` bytes.
#[must_use]
pub fn bundle(size: usize) -> String {
    let resource = patient(SMALL_BYTES);
    let entry = format!(
        r#"{{"fullUrl":"urn:uuid:1","request":{{"method":"POST","url":"Patient"}},"resource":{resource}}}"#
    );
    let mut text = String::from(r#"{"resourceType":"Bundle","type":"transaction","entry":["#);
    while text.len() + entry.len() + 4 < size {
        text.push_str(&entry);
        text.push(',');
    }
    text.push_str(&entry);
    text.push_str("]}");
    text
}

fn answer(status: &str, body: &str) -> Arc<[u8]> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/fhir+json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
    .into()
}

/// The upstream's sockets. Whoever owns the event loop calls [`Upstream::accept`] and [`Upstream::turn`].
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) listener: TcpListener,
    connections: Vec<Option<Connection>>,
    documents: Documents,
    /// Requests answered so far, other than those for the realm.
    pub(super) served: u64,
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    head: Vec<u8>,
    request: Option<(Arc<[u8]>, Body)>,
    reply: Option<(Arc<[u8]>, usize)>,
    /// Registered for writing instead of reading.
    watches_writing: bool,
}

/// What the event loop has to do with a connection after its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Wait for bytes.
    Read,
    /// Wait until bytes can be written.
    Write,
    /// It is gone.
    Gone,
}

impl Upstream {
    pub(super) fn bind(address: SocketAddr, documents: Documents) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, connections: Vec::new(), documents, served: 0 })
    }

    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Takes one waiting connection; its index, and the socket to watch.
    pub(super) fn accept(&mut self) -> io::Result<Option<(usize, &TcpStream)>> {
        let stream = match self.listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let free = self.connections.iter().position(Option::is_none);
        let index = free.unwrap_or(self.connections.len());
        if free.is_none() {
            self.connections.push(None);
        }
        let Some(place) = self.connections.get_mut(index) else { return Ok(None) };
        let made = place.insert(Connection {
            stream,
            head: Vec::new(),
            request: None,
            reply: None,
            watches_writing: false,
        });
        Ok(Some((index, &made.stream)))
    }

    pub(super) fn stream(&self, index: usize) -> Option<&TcpStream> {
        Some(&self.connections.get(index)?.as_ref()?.stream)
    }

    /// Notes whether the connection is registered for writing; whether that is news.
    pub(super) fn watch_writing(&mut self, index: usize, writing: bool) -> bool {
        let Some(Some(connection)) = self.connections.get_mut(index) else { return false };
        std::mem::replace(&mut connection.watches_writing, writing) != writing
    }

    /// Reads and writes what can be read and written without waiting.
    pub(super) fn turn(&mut self, index: usize, scratch: &mut [u8]) -> Turn {
        let Some(place) = self.connections.get_mut(index) else { return Turn::Gone };
        let Some(connection) = place else { return Turn::Gone };
        match connection.turn(scratch, &self.documents, &mut self.served) {
            Ok(turn) if turn != Turn::Gone => turn,
            _ => {
                *place = None;
                Turn::Gone
            }
        }
    }
}

impl Connection {
    fn turn(&mut self, scratch: &mut [u8], documents: &Documents, served: &mut u64) -> io::Result<Turn> {
        if self.reply.is_some() {
            return self.write();
        }
        let read = match self.stream.read(scratch) {
            Ok(0) => return Ok(Turn::Gone),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Turn::Read),
            Err(error) => return Err(error),
        };
        let input = scratch.get(..read).unwrap_or_default();
        if self.take(input, documents).map_err(io::Error::other)? {
            if let Some((document, _)) = self.request.take() {
                *served += u64::from(!Arc::ptr_eq(&document, &documents.realm));
                self.reply = Some((document, 0));
            }
            return self.write();
        }
        Ok(Turn::Read)
    }

    /// Whether a request is whole now.
    fn take(&mut self, mut input: &[u8], documents: &Documents) -> Result<bool, http1::Malformed> {
        if self.request.is_none() {
            let mut joined = std::mem::take(&mut self.head);
            let from_kept = !joined.is_empty();
            if from_kept {
                joined.extend_from_slice(input);
            }
            let all: &[u8] = if from_kept { &joined } else { input };
            let Some(end) = http1::head_end(all)? else {
                self.head = all.to_vec();
                return Ok(false);
            };
            let (head, rest) = all.split_at_checked(end).ok_or(http1::Malformed::Head)?;
            let start_line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
            let body = Body::of(http1::framing(head)).unwrap_or(Body::Bytes(0));
            self.request = Some((Arc::clone(documents.of(start_line)), body));
            input = input.get(input.len() - rest.len()..).unwrap_or_default();
        }
        let Some((_, body)) = &mut self.request else { return Ok(false) };
        let taken = body.take(input)?;
        if body.is_done() && taken < input.len() {
            return Err(http1::Malformed::Surplus);
        }
        Ok(body.is_done())
    }

    fn write(&mut self) -> io::Result<Turn> {
        while let Some((document, at)) = &mut self.reply {
            match self.stream.write(document.get(*at..).unwrap_or_default()) {
                Ok(written) => *at += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Turn::Write),
                Err(error) => return Err(error),
            }
            if *at >= document.len() {
                self.reply = None;
            }
        }
        Ok(Turn::Read)
    }
}
