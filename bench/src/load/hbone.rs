//! HBONE's client: tunnels, which are CONNECTs on one connection of HTTP/2, and HTTP/1.1 in each.
//!
//! Windows of ours are as large as they may be, so that the peer waits for its own limits alone; the
//! peer's are kept to.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::frames::{
    self, ACK, Broken, DATA, END_HEADERS, Frame, Frames, HEADERS, MAX_FRAME, SETTINGS, WINDOW_UPDATE,
    frame_head, last_number, setting, window_update,
};
use super::http1::{Malformed, Responses};
use super::http2;

/// RFC 9113 section 6.9.2, until somebody says otherwise.
const FIRST_WINDOW: i64 = 65_535;
/// Ours (RFC 9113 section 6.9.1).
const WINDOW: u32 = 0x7fff_ffff;
/// A window is topped up when so much of it has been used.
const TOP_UP: u32 = 1 << 28;
const INITIAL_WINDOW_SIZE: u16 = 4;

/// Why a connection is of no further use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Spoilt {
    /// By HTTP/2.
    #[error(transparent)]
    Outside(#[from] Broken),
    /// By what is in a tunnel.
    #[error("in a tunnel: {0}")]
    Inside(#[from] Malformed),
    /// Tunnels are not for us.
    #[error("CONNECT was answered with {0}")]
    Refused(u16),
    /// An answer that nobody asked for, or an end before it.
    #[error("a tunnel ended or spoke out of turn")]
    Turn,
}

/// One connection with its tunnels.
#[derive(Debug)]
pub(super) struct Connection {
    tunnels: Vec<Tunnel>,
    /// Those without a request, longest free first.
    free: VecDeque<usize>,
    /// Those with bytes to send.
    waiting: VecDeque<usize>,
    frames: Frames,
    /// How much the peer takes on the connection.
    room: i64,
    /// What a tunnel's room began with.
    first_room: i64,
    used: u32,
}

#[derive(Debug, Default)]
struct Tunnel {
    open: bool,
    responses: Responses,
    due: Option<Instant>,
    message: Option<(Arc<[u8]>, usize)>,
    room: i64,
    used: u32,
}

impl Connection {
    /// A connection whose preface and CONNECTs are put into `out`.
    pub(super) fn new(authority: &str, tunnels: usize, out: &mut Vec<u8>) -> Self {
        out.extend_from_slice(frames::PREFACE);
        frame_head(out, 18, SETTINGS, 0, 0);
        setting(out, 1, 0); // HEADER_TABLE_SIZE
        setting(out, 2, 0); // ENABLE_PUSH
        setting(out, INITIAL_WINDOW_SIZE, WINDOW);
        window_update(out, 0, WINDOW - 65_535);
        let mut block = Vec::new();
        http2::literal(&mut block, 2, b"CONNECT"); // :method
        http2::literal(&mut block, 1, authority.as_bytes()); // :authority
        for index in 0..tunnels {
            frame_head(out, block.len(), HEADERS, END_HEADERS, stream_of(index));
            out.extend_from_slice(&block);
        }
        Self {
            tunnels: (0..tunnels).map(|_| Tunnel { room: FIRST_WINDOW, ..Tunnel::default() }).collect(),
            free: (0..tunnels).collect(),
            waiting: VecDeque::new(),
            frames: Frames::default(),
            room: FIRST_WINDOW,
            first_room: FIRST_WINDOW,
            used: 0,
        }
    }

    /// Whether every CONNECT has been answered with 200.
    pub(super) fn all_open(&self) -> bool {
        self.tunnels.iter().all(|tunnel| tunnel.open)
    }

    /// Requests without an answer.
    pub(super) fn under_way(&self) -> u64 {
        self.tunnels.len().saturating_sub(self.free.len()) as u64
    }

    /// Puts a request into the tunnel that has been free for longest; `false` when none is.
    pub(super) fn send(&mut self, message: Arc<[u8]>, due: Instant, out: &mut Vec<u8>) -> bool {
        let Some(index) = self.free.pop_front() else { return false };
        let Some(tunnel) = self.tunnels.get_mut(index) else { return false };
        tunnel.due = Some(due);
        tunnel.message = Some((message, 0));
        self.waiting.push_back(index);
        self.pump(out);
        true
    }

    /// Writes what the peer has room for, tunnel by tunnel; who has had no room is the first to get some.
    fn pump(&mut self, out: &mut Vec<u8>) {
        for _ in 0..self.waiting.len() {
            let Some(index) = self.waiting.pop_front() else { return };
            let Some(tunnel) = self.tunnels.get_mut(index) else { continue };
            while let Some((message, at)) = &mut tunnel.message {
                let left = message.get(*at..).unwrap_or_default();
                let room = usize::try_from(self.room.min(tunnel.room)).unwrap_or(0);
                let size = left.len().min(room).min(MAX_FRAME);
                if size == 0 {
                    self.waiting.push_back(index);
                    break;
                }
                frame_head(out, size, DATA, 0, stream_of(index));
                out.extend_from_slice(left.get(..size).unwrap_or_default());
                *at += size;
                // A frame is 16 KiB at most.
                #[allow(clippy::cast_possible_wrap)]
                let taken = size as i64;
                self.room -= taken;
                tunnel.room -= taken;
                if *at == message.len() {
                    tunnel.message = None;
                }
            }
        }
    }

    /// Takes in what has arrived: `answered` is told of each whole response, `out` gets what the
    /// protocol wants us to say. Whether the connection can be used on.
    ///
    /// # Errors
    /// [`Spoilt`].
    pub(super) fn feed(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        mut answered: impl FnMut(u16, Instant),
    ) -> Result<bool, Spoilt> {
        let mut split = std::mem::take(&mut self.frames);
        let mut goes_on = true;
        let fed = split.each(input, |frame| {
            match frame.kind {
                HEADERS => self.opened(&frame)?,
                DATA => goes_on &= self.data(&frame, out, &mut answered)?,
                WINDOW_UPDATE => self.more_room(&frame, out)?,
                SETTINGS if frame.flags & ACK == 0 => self.settings(&frame, out)?,
                _ => frame.housekeeping(out)?,
            }
            // One that ends without an answer under way is not used on either.
            goes_on &= !frame.ends();
            Ok::<(), Spoilt>(())
        });
        self.frames = split;
        fed.map(|()| goes_on)
    }

    fn opened(&mut self, frame: &Frame<'_>) -> Result<(), Spoilt> {
        let tunnel = self.tunnels.get_mut(index_of(frame.stream)).ok_or(Broken::Frame)?;
        if tunnel.open {
            return Err(Spoilt::Turn); // trailers
        }
        match frame.block().and_then(http2::status).ok_or(Broken::Frame)? {
            200 => tunnel.open = true,
            other => return Err(Spoilt::Refused(other)),
        }
        Ok(())
    }

    fn data(
        &mut self,
        frame: &Frame<'_>,
        out: &mut Vec<u8>,
        answered: &mut impl FnMut(u16, Instant),
    ) -> Result<bool, Spoilt> {
        let index = index_of(frame.stream);
        let tunnel = self.tunnels.get_mut(index).ok_or(Broken::Frame)?;
        let length = u32::try_from(frame.payload.len()).map_err(|_| Broken::Frame)?;
        top_up(&mut self.used, length, 0, out);
        top_up(&mut tunnel.used, length, frame.stream, out);
        match tunnel.responses.feed(frame.payload)? {
            None if frame.ends() => Err(Spoilt::Turn),
            None => Ok(true),
            Some(answer) => {
                let due = tunnel.due.take().ok_or(Spoilt::Turn)?;
                self.free.push_back(index);
                answered(answer.status, due);
                Ok(!answer.close)
            }
        }
    }

    fn more_room(&mut self, frame: &Frame<'_>, out: &mut Vec<u8>) -> Result<(), Spoilt> {
        let more = i64::from(last_number(frame.payload));
        match frame.stream {
            0 => self.room += more,
            stream => self.tunnels.get_mut(index_of(stream)).ok_or(Broken::Frame)?.room += more,
        }
        self.pump(out);
        Ok(())
    }

    fn settings(&mut self, frame: &Frame<'_>, out: &mut Vec<u8>) -> Result<(), Spoilt> {
        for setting in frame.payload.chunks_exact(6) {
            let (name, value) = setting.split_at_checked(2).ok_or(Broken::Frame)?;
            if name == INITIAL_WINDOW_SIZE.to_be_bytes() {
                let first = i64::from(last_number(value));
                let more = first - self.first_room;
                self.first_room = first;
                self.tunnels.iter_mut().for_each(|tunnel| tunnel.room += more);
            }
        }
        frame.housekeeping(out)?;
        self.pump(out);
        Ok(())
    }
}

fn top_up(used: &mut u32, length: u32, stream: u32, out: &mut Vec<u8>) {
    *used += length;
    if *used >= TOP_UP {
        window_update(out, stream, *used);
        *used = 0;
    }
}

/// Clients' streams are odd (RFC 9113 section 5.1.1).
fn stream_of(index: usize) -> u32 {
    u32::try_from(2 * index + 1).unwrap_or(u32::MAX)
}

fn index_of(stream: u32) -> usize {
    usize::try_from(stream / 2).unwrap_or(usize::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// What a server says at first, so much room in each tunnel and all of it on the connection.
    fn opening(room: u32) -> Vec<u8> {
        let mut wire = Vec::new();
        frame_head(&mut wire, 6, SETTINGS, 0, 0);
        setting(&mut wire, INITIAL_WINDOW_SIZE, room);
        frame_head(&mut wire, 1, HEADERS, END_HEADERS, 1);
        wire.push(0x88);
        wire
    }

    fn sent(out: &[u8]) -> usize {
        let mut bytes = 0;
        Frames::default()
            .each(out, |frame| {
                bytes += if frame.kind == DATA { frame.payload.len() } else { 0 };
                Ok::<(), Broken>(())
            })
            .unwrap();
        bytes
    }

    #[test]
    fn a_request_keeps_to_the_peers_windows_and_its_answer_is_read_however_it_is_cut() {
        let mut out = Vec::new();
        let mut connection = Connection::new("127.0.0.1:8080", 1, &mut out);
        assert!(connection.feed(&opening(40_000), &mut out, |_, _| {}).unwrap() && connection.all_open());
        out.clear();
        assert!(connection.send(vec![b'x'; 100_000].into(), Instant::now(), &mut out));
        assert_eq!((sent(&out), connection.under_way()), (40_000, 1));
        assert!(!connection.send(vec![b'x'; 1].into(), Instant::now(), &mut out), "one at a time");
        let mut more = Vec::new();
        window_update(&mut more, 1, 70_000);
        connection.feed(&more, &mut out, |_, _| {}).unwrap();
        assert_eq!(sent(&out), 65_535, "the connection's own window");
        more.clear();
        window_update(&mut more, 0, 70_000);
        connection.feed(&more, &mut out, |_, _| {}).unwrap();
        assert_eq!(sent(&out), 100_000);
        let mut wire = Vec::new();
        let answer = b"HTTP/1.1 201 Created\r\ncontent-length: 5\r\n\r\nhello";
        for half in answer.chunks(30) {
            frame_head(&mut wire, half.len(), DATA, 0, 1);
            wire.extend_from_slice(half);
        }
        let mut seen = Vec::new();
        for byte in wire.chunks(1) {
            assert!(connection.feed(byte, &mut out, |status, _| seen.push(status)).unwrap());
        }
        assert_eq!((seen.as_slice(), connection.under_way()), ([201].as_slice(), 0));
    }

    #[test]
    fn refusals_and_ends_out_of_turn_are_told() {
        let mut out = Vec::new();
        let mut refused = Connection::new("127.0.0.1:8080", 1, &mut out);
        let mut wire = Vec::new();
        frame_head(&mut wire, 5, HEADERS, END_HEADERS | frames::END_STREAM, 1);
        wire.extend_from_slice(&[0x08, 3, b'4', b'0', b'1']);
        assert_eq!(refused.feed(&wire, &mut out, |_, _| {}), Err(Spoilt::Refused(401)));
        let mut ended = Connection::new("127.0.0.1:8080", 1, &mut out);
        ended.feed(&opening(65_535), &mut out, |_, _| {}).unwrap();
        assert!(ended.send(b"GET".as_slice().into(), Instant::now(), &mut out));
        wire.clear();
        frame_head(&mut wire, 0, DATA, frames::END_STREAM, 1);
        assert_eq!(ended.feed(&wire, &mut out, |_, _| {}), Err(Spoilt::Turn));
    }
}
