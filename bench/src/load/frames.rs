//! HTTP/2's frames, as much of them as the generator needs (RFC 9113 sections 4 and 6).

/// What a client says first.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Largest frame that a peer may send without our leave (RFC 9113 section 4.2), and we to it.
pub(super) const MAX_FRAME: usize = 16_384;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
pub(super) const END_STREAM: u8 = 1;
pub(super) const ACK: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;

/// Why a connection is of no further use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// The peer goes away, with this error code.
    #[error("GOAWAY with error {0}")]
    GoAway(u32),
    /// The peer resets a stream, with this error code.
    #[error("RST_STREAM with error {0}")]
    Reset(u32),
    /// Bytes that are no frame, or headers without a status that we can read.
    #[error("a frame that cannot be read")]
    Frame,
}

/// One frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame<'a> {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Whether its stream ends with it.
    pub(super) fn ends(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }

    /// The header block of HEADERS, padding behind it included.
    pub(super) fn block(&self) -> Option<&'a [u8]> {
        let padded = usize::from(self.flags & PADDED != 0);
        self.payload.get(padded + if self.flags & PRIORITY != 0 { 5 } else { 0 }..)
    }

    /// What the protocol wants of every connection, whatever its streams are for.
    ///
    /// # Errors
    /// [`Broken`]: streams that are reset, and the connection's end.
    pub(super) fn housekeeping(&self, out: &mut Vec<u8>) -> Result<(), Broken> {
        match self.kind {
            SETTINGS if self.flags & ACK == 0 => frame_head(out, 0, SETTINGS, ACK, 0),
            PING if self.flags & ACK == 0 => {
                frame_head(out, self.payload.len(), PING, ACK, 0);
                out.extend_from_slice(self.payload);
            }
            RST_STREAM => return Err(Broken::Reset(last_number(self.payload))),
            GOAWAY => {
                return Err(Broken::GoAway(last_number(self.payload.get(4..8).unwrap_or_default())));
            }
            CONTINUATION => return Err(Broken::Frame),
            _ => {}
        }
        Ok(())
    }
}

/// Cuts what arrives into frames; keeps the one that is not whole yet.
#[derive(Debug, Default)]
pub(super) struct Frames {
    kept: Vec<u8>,
}

impl Frames {
    /// Hands on each whole frame.
    ///
    /// # Errors
    /// That of `take`, or [`Broken::Frame`].
    pub(super) fn each<E: From<Broken>>(
        &mut self,
        input: &[u8],
        mut take: impl FnMut(Frame<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut kept = std::mem::take(&mut self.kept);
        let from_kept = !kept.is_empty();
        if from_kept {
            kept.extend_from_slice(input);
        }
        let mut rest: &[u8] = if from_kept { &kept } else { input };
        while let Some((head, after)) = rest.split_at_checked(9) {
            let [a, b, c, kind, flags, s0, s1, s2, s3] = *head else { break };
            let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            if length > MAX_FRAME {
                return Err(Broken::Frame.into());
            }
            let Some((payload, next)) = after.split_at_checked(length) else { break };
            let stream = u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]);
            take(Frame { kind, flags, stream, payload })?;
            rest = next;
        }
        self.kept = rest.to_vec();
        Ok(())
    }
}

/// The last four bytes of a payload, as a number.
pub(super) fn last_number(payload: &[u8]) -> u32 {
    payload.iter().rev().take(4).rev().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

#[allow(clippy::cast_possible_truncation)]
pub(super) fn frame_head(out: &mut Vec<u8>, length: usize, kind: u8, flags: u8, stream: u32) {
    out.extend_from_slice(&[(length >> 16) as u8, (length >> 8) as u8, length as u8, kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
}

pub(super) fn setting(out: &mut Vec<u8>, name: u16, value: u32) {
    out.extend_from_slice(&name.to_be_bytes());
    out.extend_from_slice(&value.to_be_bytes());
}

pub(super) fn window_update(out: &mut Vec<u8>, stream: u32, by: u32) {
    frame_head(out, 4, WINDOW_UPDATE, 0, stream);
    out.extend_from_slice(&by.to_be_bytes());
}
