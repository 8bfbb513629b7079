//! An eye on the wire: every frame on every interface of the node's network namespace, the host side
//! of the pods' veths among them.

use std::{
    io::{ErrorKind, Read},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use demo::pods::Namespace;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::Result;

/// All protocols (packet(7)): frames as they come from the wire, before any program has seen them.
const ETH_P_ALL: u16 = 0x0003;
/// Sockets of one protocol hear a frame where its handler would: behind the programs at the interface's
/// ingress. IPv4, IPv6, VLAN tags that nobody takes off, and one that nobody knows.
const HANDLED: [u16; 5] = [0x0800, 0x86dd, 0x8100, 0x88a8, 0x88b5];
const BUFFER: usize = 64 << 20;
const FRAME_MAX: usize = 70_000;
/// How long a read waits until it looks whether to end.
const WAIT: Duration = Duration::from_millis(20);
/// Kept at most; more says enough.
const KEPT_MAX: usize = 200_000;

/// The ports from which the clients under load connect: below the ephemeral ones, which the proxy's
/// connections have.
pub const CLIENT_PORTS: std::ops::Range<u16> = 20_000..30_000;

/// Collects frames until it is dropped.
pub struct Sniffer {
    frames: Arc<Mutex<Vec<Vec<u8>>>>,
    end: Arc<AtomicBool>,
    readers: Vec<JoinHandle<()>>,
}

impl Sniffer {
    /// Sees every frame on the wire: for little traffic.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn all(namespace: &Namespace) -> Result<Self> {
        Self::start(namespace, &[ETH_P_ALL], &[])
    }

    /// Sees the frames that the node itself would take up: not what is dropped at its interfaces.
    ///
    /// # Errors
    /// When the sockets cannot be made.
    pub fn taken(namespace: &Namespace) -> Result<Self> {
        Self::start(namespace, &HANDLED, &[])
    }

    /// Sees of the pods' frames only what no captured client may cause: TCP SYNs from ports below 32768,
    /// fragments, and what is neither IPv4 nor IPv6 nor ARP. The kernel drops the rest, so that no load can make it
    /// miss one.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn strays(namespace: &Namespace) -> Result<Self> {
        Self::start(namespace, &[ETH_P_ALL], &stray_filter())
    }

    fn start(namespace: &Namespace, protocols: &[u16], filter: &[SockFilter]) -> Result<Self> {
        let frames = Arc::new(Mutex::new(Vec::new()));
        let end = Arc::new(AtomicBool::new(false));
        let mut readers = Vec::new();
        for protocol in protocols {
            let socket = namespace.run(|| open(*protocol, filter))??;
            let (frames, end) = (Arc::clone(&frames), Arc::clone(&end));
            readers.push(thread::spawn(move || read(&socket, &frames, &end)));
        }
        Ok(Self { frames, end, readers })
    }

    /// How many frames hold `mark` somewhere.
    #[must_use]
    pub fn holding(&self, mark: &[u8]) -> usize {
        self.with(|frames| frames.iter().filter(|frame| holds(frame, mark)).count())
    }

    /// What was seen so far.
    #[must_use]
    pub fn frames(&self) -> Vec<Vec<u8>> {
        self.with(<[Vec<u8>]>::to_vec)
    }

    fn with<T>(&self, look: impl FnOnce(&[Vec<u8>]) -> T) -> T {
        look(&self.frames.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Sniffer {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
    }
}

/// A packet socket hears from its making on, before a filter can be attached: what came in between is
/// read away.
fn open(protocol: u16, filter: &[SockFilter]) -> std::io::Result<Socket> {
    let protocol = Protocol::from(i32::from(protocol.to_be()));
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol))?;
    rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER)?;
    if !filter.is_empty() {
        socket.attach_filter(filter)?;
        socket.set_nonblocking(true)?;
        let mut frame = [0; 1];
        while (&socket).read(&mut frame).is_ok() {}
        socket.set_nonblocking(false)?;
    }
    socket.set_read_timeout(Some(WAIT))?;
    Ok(socket)
}

/// A socket for every frame that comes in at any interface of the namespace, and none that goes out.
pub(super) fn incoming() -> std::io::Result<Socket> {
    let step = SockFilter::new;
    let filter = [
        step(LOAD_8, 0, 0, KIND),
        step(IF_EQUAL, 0, 1, OUTGOING),
        step(END, 0, 0, 0),
        step(END, 0, 0, u32::MAX),
    ];
    open(ETH_P_ALL, &filter)
}

/// Of classic BPF (Documentation/networking/filter.rst): code, jump if so, jump if not, constant.
const LOAD_16: u16 = 0x28;
const LOAD_8: u16 = 0x30;
const LOAD_8_AFTER: u16 = 0x50;
const LOAD_16_AFTER: u16 = 0x48;
const HEADER_LENGTH: u16 = 0xb1;
const AND: u16 = 0x54;
const IF_EQUAL: u16 = 0x15;
const IF_AT_LEAST: u16 = 0x35;
const IF_BITS: u16 = 0x45;
const END: u16 = 0x06;

/// The kind of a packet (`SKF_AD_OFF + SKF_AD_PKTTYPE`), and that of one which the node itself sends.
const KIND: u32 = 0xffff_f004;
const OUTGOING: u32 = 4;

fn stray_filter() -> Vec<SockFilter> {
    let step = SockFilter::new;
    vec![
        step(LOAD_8, 0, 0, KIND),          // 0
        step(IF_EQUAL, 29, 0, OUTGOING),   // 1: of the node -> pass over
        step(LOAD_16, 0, 0, 12),           // 2: ethertype
        step(IF_EQUAL, 3, 0, 0x0800),      // 3: IPv4 -> 7
        step(IF_EQUAL, 12, 0, 0x86dd),     // 4: IPv6 -> 17
        step(IF_EQUAL, 25, 0, 0x0806),     // 5: ARP -> pass over
        step(END, 0, 0, u32::MAX),         // 6: anything else is a stray
        step(LOAD_8, 0, 0, 23),            // 7: protocol
        step(IF_EQUAL, 0, 22, 6),          // 8: not TCP -> pass over
        step(LOAD_16, 0, 0, 20),           // 9: fragment
        step(IF_BITS, 19, 0, 0x3fff),      // 10: of a whole -> stray
        step(HEADER_LENGTH, 0, 0, 14),     // 11
        step(LOAD_8_AFTER, 0, 0, 14 + 13), // 12: flags
        step(AND, 0, 0, 0x12),             // 13
        step(IF_EQUAL, 0, 16, 0x02),       // 14: not a SYN, or with ACK -> pass over
        step(LOAD_16_AFTER, 0, 0, 14),     // 15: source port
        step(IF_AT_LEAST, 14, 13, 32_768), // 16
        step(LOAD_8, 0, 0, 20),            // 17: next header
        step(IF_EQUAL, 5, 0, 6),           // 18: TCP -> 24
        step(IF_EQUAL, 11, 0, 58),         // 19: ICMPv6 -> pass over
        step(IF_EQUAL, 10, 0, 17),         // 20: UDP -> pass over
        step(IF_EQUAL, 0, 8, 0),           // 21: not hop-by-hop -> stray
        step(LOAD_8, 0, 0, 54),            // 22: what follows it
        step(IF_EQUAL, 7, 6, 58),          // 23: multicast listeners' reports -> pass over, else stray
        step(LOAD_8, 0, 0, 14 + 40 + 13),  // 24: flags
        step(AND, 0, 0, 0x12),             // 25
        step(IF_EQUAL, 0, 4, 0x02),        // 26: not a SYN, or with ACK -> pass over
        step(LOAD_16, 0, 0, 14 + 40),      // 27: source port
        step(IF_AT_LEAST, 2, 1, 32_768),   // 28
        step(END, 0, 0, u32::MAX),         // 29: never reached
        step(END, 0, 0, u32::MAX),         // 30: stray
        step(END, 0, 0, 0),                // 31: pass over
    ]
}

fn read(socket: &Socket, frames: &Mutex<Vec<Vec<u8>>>, end: &AtomicBool) {
    let mut buffer = vec![0; FRAME_MAX];
    let mut reader = socket;
    while !end.load(Ordering::Relaxed) {
        match reader.read(&mut buffer) {
            Ok(length) => {
                let mut frames = frames.lock().unwrap_or_else(PoisonError::into_inner);
                if frames.len() < KEPT_MAX {
                    frames.push(buffer.iter().take(length).copied().collect());
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            // An interface that went down says so once; the socket hears on.
            Err(_) => {}
        }
    }
}

fn holds(frame: &[u8], mark: &[u8]) -> bool {
    frame.windows(mark.len()).any(|window| window == mark)
}
