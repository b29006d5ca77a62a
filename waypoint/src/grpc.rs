//! Counts the messages of a gRPC stream. Pure.

/// Counts what passes in one direction. gRPC's wire format: each message has five octets before it, a flag and
/// its length.
#[derive(Debug, Default)]
pub struct MessageCounter {
    prefix: [u8; PREFIX],
    filled: usize,
    /// Octets of a message that are still to come.
    left: usize,
    messages: u64,
}

impl MessageCounter {
    /// Takes the next octets.
    pub fn passed(&mut self, mut octets: &[u8]) {
        while !octets.is_empty() {
            let of_message = self.left.min(octets.len());
            self.left -= of_message;
            octets = &octets[of_message..];
            let of_prefix = (PREFIX - self.filled).min(octets.len());
            self.prefix[self.filled..self.filled + of_prefix].copy_from_slice(&octets[..of_prefix]);
            self.filled += of_prefix;
            octets = &octets[of_prefix..];
            if self.filled == PREFIX {
                let [_, a, b, c, d] = self.prefix;
                self.left = u32::from_be_bytes([a, b, c, d]) as usize;
                self.filled = 0;
                self.messages += 1;
            }
        }
    }

    /// How many messages have begun.
    pub fn messages(&self) -> u64 {
        self.messages
    }
}

/// Octets before a message.
const PREFIX: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_count_however_they_are_cut() {
        let stream = [&[0, 0, 0, 0, 3][..], b"one", &[0, 0, 0, 0, 0], &[1, 0, 0, 0, 7], b"seventh"].concat();
        for size in 1..=stream.len() {
            let mut counter = MessageCounter::default();
            stream.chunks(size).for_each(|piece| counter.passed(piece));
            assert_eq!(counter.messages(), 3, "pieces of {size}");
        }
    }
}
