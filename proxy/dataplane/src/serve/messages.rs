//! gRPC messages, counted as they pass (gRPC over HTTP/2, "Length-Prefixed-Message").

/// Follows the length prefixes of one direction.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    count: u64,
    prefix: usize,
    length: u32,
    left: usize,
}

/// One byte of flags, four of length.
const PREFIX: usize = 5;

impl Messages {
    /// Takes more bytes; gives the messages begun so far.
    pub(crate) fn count(&mut self, mut bytes: &[u8]) -> u64 {
        while !bytes.is_empty() {
            if self.left > 0 {
                let here = self.left.min(bytes.len());
                self.left -= here;
                bytes = bytes.get(here..).unwrap_or_default();
                continue;
            }
            let Some((byte, rest)) = bytes.split_first() else { break };
            bytes = rest;
            if self.prefix > 0 {
                self.length = self.length << 8 | u32::from(*byte);
            }
            self.prefix += 1;
            if self.prefix == PREFIX {
                self.left = usize::try_from(self.length).unwrap_or(usize::MAX);
                self.count += 1;
                (self.prefix, self.length) = (0, 0);
            }
        }
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_however_they_are_cut() {
        let stream = [&b"\0\0\0\0\x03abc"[..], b"\0\0\0\0\0", b"\x01\0\0\x01\0", &[7; 256]].concat();
        for step in 1..stream.len() {
            let mut messages = Messages::default();
            let count = stream.chunks(step).map(|part| messages.count(part)).last();
            assert_eq!(count, Some(3), "by {step}");
        }
    }
}
