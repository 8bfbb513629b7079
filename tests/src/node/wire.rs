//! An eye on the wire between nodes: every byte of every connection is looked at as it passes. Tunnels are
//! TLS on HBONE's port; anything else is a stray.

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use demo::pods::Namespace;
use socket2::Socket;

use super::{
    Result,
    packet::{self, Segment},
    sniffer,
    stream::Stream,
};

/// HBONE's port.
pub const TUNNELS: u16 = 15_008;
const FRAME_MAX: usize = 70_000;
const WAIT: Duration = Duration::from_millis(20);
/// Strays kept; more say no more.
const STRAYS_MAX: usize = 1000;

/// Watches until it is dropped.
pub struct Wire {
    seen: Arc<Mutex<Seen>>,
    end: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

/// What has passed.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    /// By who sends and who receives: each direction of each connection to or from HBONE's port.
    tunnels: BTreeMap<(SocketAddr, SocketAddr), Stream>,
    /// What was no segment of a tunnel, told in words.
    pub strays: Vec<String>,
}

impl Seen {
    /// Connections that were opened to HBONE's port of `address`.
    #[must_use]
    pub fn tunnels_to(&self, address: IpAddr) -> usize {
        self.to(address).count()
    }

    /// Bytes within TLS records of application data, to HBONE's port of `address` and back.
    #[must_use]
    pub fn carried(&self, address: IpAddr) -> u64 {
        let of = |ends: &(SocketAddr, SocketAddr)| [ends.0, ends.1].contains(&(address, TUNNELS).into());
        self.tunnels.iter().filter(|(ends, _)| of(ends)).map(|(_, stream)| stream.carried()).sum()
    }

    /// Connections to HBONE's port that were not TLS throughout: what was wrong.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let fault = |((from, to), stream): (&(SocketAddr, SocketAddr), &Stream)| {
            stream.fault().map(|why| format!("{from} to {to}: {why}"))
        };
        self.tunnels.iter().filter_map(fault).collect()
    }

    /// Asserts that nothing but tunnels was there, and TLS alone in them.
    ///
    /// # Panics
    /// When something else was seen.
    pub fn assert_sealed(&self) {
        assert!(self.strays.is_empty(), "{} strays between the nodes: {:#?}", self.strays.len(), self.strays);
        let faults = self.faults();
        assert!(faults.is_empty(), "not TLS on port {TUNNELS}: {faults:#?}");
    }

    fn to(&self, address: IpAddr) -> impl Iterator<Item = &Stream> {
        let fits = move |ends: &(SocketAddr, SocketAddr)| ends.1 == (address, TUNNELS).into();
        self.tunnels.iter().filter(move |(ends, _)| fits(ends)).map(|(_, stream)| stream)
    }

    fn take(&mut self, frame: &[u8]) {
        match packet::read(frame) {
            packet::Kind::Tcp(segment) => self.segment(&segment),
            packet::Kind::Neighbours => {}
            packet::Kind::Other(what) => self.stray(what),
        }
    }

    fn segment(&mut self, segment: &Segment<'_>) {
        if segment.from.port() != TUNNELS && segment.to.port() != TUNNELS {
            return self.stray(segment.to_string());
        }
        let ends = (segment.from, segment.to);
        if segment.opens {
            // Of the same ports as one before: a new connection. What was wrong with the old one stays.
            if let Some(fault) = self.tunnels.get(&ends).and_then(Stream::fault) {
                self.stray(format!("{segment}: {fault}"));
            }
            self.tunnels.insert(ends, Stream::new(segment.sequence));
            return;
        }
        // One from before the eye was open says nothing that can be understood.
        if let Some(stream) = self.tunnels.get_mut(&ends) {
            stream.take(segment.sequence, segment.bytes);
        }
    }

    fn stray(&mut self, what: String) {
        if self.strays.len() < STRAYS_MAX {
            self.strays.push(what);
        }
    }
}

impl Wire {
    /// Watches what passes through a namespace between nodes.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn watch(namespace: &Namespace) -> Result<Self> {
        let socket = namespace.run(sniffer::incoming)??;
        let (seen, end) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let reader = {
            let (seen, end) = (Arc::clone(&seen), Arc::clone(&end));
            thread::spawn(move || read(&socket, &seen, &end))
        };
        Ok(Self { seen, end, reader: Some(reader) })
    }

    /// What has passed since the beginning or the last [`Wire::forget`].
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.lock().clone()
    }

    /// Forgets the strays so far; tunnels go on.
    pub fn forget(&self) {
        self.lock().strays.clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

fn read(socket: &Socket, seen: &Mutex<Seen>, end: &AtomicBool) {
    let mut frame = vec![0; FRAME_MAX];
    let mut reader = socket;
    let _ = socket.set_read_timeout(Some(WAIT));
    while !end.load(Ordering::Relaxed) {
        match reader.read(&mut frame) {
            Ok(length) => {
                let frame = frame.get(..length).unwrap_or_default();
                seen.lock().unwrap_or_else(PoisonError::into_inner).take(frame);
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            // An interface that went down says so once; the socket hears on.
            Err(_) => {}
        }
    }
}

/// An address of either family from its bytes.
pub(super) fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).ok().map(|bytes| IpAddr::V4(Ipv4Addr::from(bytes)));
    v4.or_else(|| <[u8; 16]>::try_from(bytes).ok().map(|bytes| IpAddr::V6(Ipv6Addr::from(bytes))))
}
