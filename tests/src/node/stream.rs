//! One direction of a connection, put in order and read as TLS records (RFC 8446 §5.1).

use std::collections::BTreeMap;

const HEADER: usize = 5;
/// The longest record: a whole one's 2^14 bytes, and what encryption adds at most.
const RECORD_MAX: usize = (1 << 14) + 256;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
const CHANGE_CIPHER_SPEC: u8 = 20;
/// Bytes that came before their turn; more are waited for in vain, the eye has missed one.
const EARLY_MAX: usize = 64 << 20;

/// What one end has sent.
#[derive(Debug, Clone)]
pub(super) struct Stream {
    /// The sequence number of the next byte.
    next: u32,
    early: BTreeMap<u32, Vec<u8>>,
    header: Vec<u8>,
    /// Bytes of the record under way that are still to come.
    left: usize,
    kind: u8,
    records: u64,
    carried: u64,
    fault: Option<String>,
}

impl Stream {
    /// After a SYN with this sequence number.
    pub(super) fn new(sequence: u32) -> Self {
        Self {
            next: sequence.wrapping_add(1),
            early: BTreeMap::new(),
            header: Vec::new(),
            left: 0,
            kind: 0,
            records: 0,
            carried: 0,
            fault: None,
        }
    }

    /// Bytes in records of application data.
    pub(super) fn carried(&self) -> u64 {
        self.carried
    }

    /// What was not TLS, or not seen.
    pub(super) fn fault(&self) -> Option<String> {
        let missed = (!self.early.is_empty()).then(|| "bytes before these were not seen".to_owned());
        self.fault.clone().or(missed)
    }

    pub(super) fn take(&mut self, sequence: u32, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let held: usize = self.early.values().map(Vec::len).sum();
        if self.is_ahead(sequence) {
            if held < EARLY_MAX {
                self.early.insert(sequence, bytes.to_vec());
            }
            return;
        }
        self.in_order(sequence, bytes);
        while let Some(sequence) = self.early.keys().copied().find(|sequence| !self.is_ahead(*sequence)) {
            let bytes = self.early.remove(&sequence).unwrap_or_default();
            self.in_order(sequence, &bytes);
        }
    }

    /// Whether bytes before this one are still to come; sequence numbers go round.
    fn is_ahead(&self, sequence: u32) -> bool {
        (1..1 << 31).contains(&sequence.wrapping_sub(self.next))
    }

    /// The part of `bytes` that is new.
    fn in_order(&mut self, sequence: u32, bytes: &[u8]) {
        let old = self.next.wrapping_sub(sequence) as usize;
        let Some(new) = bytes.get(old..) else { return };
        self.next = self.next.wrapping_add(u32::try_from(new.len()).unwrap_or(0));
        if self.fault.is_none() {
            self.records(new);
        }
    }

    fn records(&mut self, mut bytes: &[u8]) {
        while let Some(first) = bytes.first() {
            if self.left > 0 {
                let (of_record, rest) = bytes.split_at(self.left.min(bytes.len()));
                self.left -= of_record.len();
                if self.kind == APPLICATION_DATA {
                    self.carried += of_record.len() as u64;
                }
                bytes = rest;
                continue;
            }
            self.header.push(*first);
            bytes = bytes.get(1..).unwrap_or_default();
            if self.header.len() == HEADER {
                self.begin();
            }
            if self.fault.is_some() {
                return;
            }
        }
    }

    /// A record begins: its header is whole.
    fn begin(&mut self) {
        if let [kind, 3, 1..=3, high, low] = *self.header.as_slice() {
            let length = usize::from(u16::from_be_bytes([high, low]));
            let known = match kind {
                HANDSHAKE => true,
                // Nothing comes before the first handshake but what ends the connection.
                CHANGE_CIPHER_SPEC | APPLICATION_DATA => self.records > 0,
                ALERT => true,
                _ => false,
            };
            if known && length <= RECORD_MAX {
                (self.kind, self.left) = (kind, length);
                self.records += 1;
                self.header.clear();
                return;
            }
        }
        let text = String::from_utf8_lossy(&self.header);
        self.fault = Some(format!("no TLS record: {:02x?} {text:?}", self.header));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::Stream;

    const HELLO: &[u8] = b"\x16\x03\x01\x00\x02hi";
    const DATA: &[u8] = b"\x17\x03\x03\x00\x05patie";

    #[test]
    fn records_are_told_from_plaintext_however_they_are_cut() {
        let all = [HELLO, DATA, DATA].concat();
        let mut stream = Stream::new(u32::MAX - 3);
        for (at, byte) in all.iter().enumerate() {
            stream.take((u32::MAX - 2).wrapping_add(u32::try_from(at).unwrap()), &[*byte]);
        }
        assert_eq!((stream.carried(), stream.fault()), (10, None));
        stream.take(u32::try_from(all.len()).unwrap().wrapping_sub(3), b"GET /");
        assert!(stream.fault().unwrap().contains("GET /"), "{stream:?}");
    }

    #[test]
    fn what_comes_twice_or_too_early_is_put_in_order() {
        let all = [HELLO, DATA, DATA].concat();
        let mut stream = Stream::new(0);
        stream.take(8, &all[7..]);
        assert!(stream.fault().is_some(), "a gap is told");
        stream.take(1, &all[..9]);
        stream.take(3, &all[2..12]);
        assert_eq!((stream.carried(), stream.fault()), (10, None));
    }

    #[test]
    fn data_without_a_handshake_is_no_tls() {
        let mut stream = Stream::new(0);
        stream.take(1, DATA);
        assert!(stream.fault().is_some());
    }
}
