//! Reads a body by its length.

use super::{Frame, ReadError, Shared};
use crate::head::{BodyLength, Refusal, parse_trailers};

/// The rest of a body.
#[derive(Debug)]
pub struct BodyReader {
    wire: Shared,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Exactly(u64),
    UntilClose,
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailers,
    Done,
}

impl BodyReader {
    /// The body behind a head that was just read from `wire`.
    pub fn new(wire: Shared, length: BodyLength) -> Self {
        let state = match length {
            BodyLength::None | BodyLength::Exactly(0) => State::Done,
            BodyLength::Exactly(octets) => State::Exactly(octets),
            BodyLength::Chunked => State::ChunkSize,
            BodyLength::UntilClose => State::UntilClose,
        };
        Self { wire, state }
    }

    /// Whether all of it was read.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The next piece, or `None` behind the last. Cancelling it loses nothing.
    ///
    /// # Errors
    /// When the body is malformed or cut off.
    pub async fn frame(&mut self) -> Result<Option<Frame>, ReadError> {
        loop {
            if self.state == State::Done {
                return Ok(None);
            }
            if let Some(frame) = self.step()? {
                return Ok(Some(frame));
            }
            if self.state != State::Done && self.wire.fill().await? == 0 {
                if self.state != State::UntilClose {
                    return Err(ReadError::Truncated);
                }
                self.state = State::Done;
            }
        }
    }

    /// Goes on with what has come: a piece, or `None` when more must come first.
    fn step(&mut self) -> Result<Option<Frame>, ReadError> {
        let mut wire = self.wire.wire.borrow_mut();
        loop {
            let unread = wire.unread();
            match self.state {
                State::Done => return Ok(None),
                State::Exactly(left) => {
                    let taken = within(unread.len(), left);
                    if taken == 0 {
                        return Ok(None);
                    }
                    let left = left - taken as u64;
                    self.state = if left == 0 { State::Done } else { State::Exactly(left) };
                    return Ok(Some(Frame::Data(wire.consume(taken))));
                }
                State::Chunk(left) => {
                    let taken = within(unread.len(), left);
                    if taken == 0 {
                        return Ok(None);
                    }
                    let left = left - taken as u64;
                    self.state = if left == 0 { State::ChunkEnd } else { State::Chunk(left) };
                    return Ok(Some(Frame::Data(wire.consume(taken))));
                }
                State::UntilClose => {
                    let taken = unread.len();
                    if taken == 0 {
                        return Ok(None);
                    }
                    return Ok(Some(Frame::Data(wire.consume(taken))));
                }
                State::ChunkSize => {
                    let Some((taken, size)) = chunk_size(unread)? else { return Ok(None) };
                    wire.consume(taken);
                    self.state = if size == 0 { State::Trailers } else { State::Chunk(size) };
                }
                State::ChunkEnd => {
                    if unread.len() < 2 {
                        return Ok(None);
                    }
                    if !unread.starts_with(b"\r\n") {
                        return Err(Refusal::Chunk.into());
                    }
                    wire.consume(2);
                    self.state = State::ChunkSize;
                }
                State::Trailers => {
                    let Some((taken, trailers)) = parse_trailers(unread)? else { return Ok(None) };
                    wire.consume(taken);
                    self.state = State::Done;
                    let trailers = (!trailers.is_empty()).then_some(Frame::Trailers(trailers));
                    return Ok(trailers);
                }
            }
        }
    }
}

fn within(available: usize, left: u64) -> usize {
    usize::try_from(left).map_or(available, |left| available.min(left))
}

/// A chunk's size and the octets of its line. Extensions are not for us, and are dropped (RFC 9112
/// §7.1.1).
fn chunk_size(octets: &[u8]) -> Result<Option<(usize, u64)>, Refusal> {
    let Some(end) = octets.iter().position(|octet| *octet == b'\n') else {
        return if octets.len() > MAX_CHUNK_LINE { Err(Refusal::Chunk) } else { Ok(None) };
    };
    let line = octets[..end].strip_suffix(b"\r").ok_or(Refusal::Chunk)?;
    if line.len() > MAX_CHUNK_LINE || line.contains(&b'\r') {
        return Err(Refusal::Chunk);
    }
    let digits = line.split(|octet| *octet == b';').next().unwrap_or_default();
    if digits.is_empty() || digits.len() > 16 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(Refusal::Chunk);
    }
    let digits = std::str::from_utf8(digits).map_err(|_| Refusal::Chunk)?;
    u64::from_str_radix(digits, 16).map(|size| Some((end + 1, size))).map_err(|_| Refusal::Chunk)
}

/// Octets of a line with a chunk's size.
const MAX_CHUNK_LINE: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_has_one_size() {
        for (line, expected) in [
            (&b"5\r\n"[..], Ok(Some((3, 5)))),
            (b"0a;name=value\r\n", Ok(Some((15, 10)))),
            (b"5", Ok(None)),
            (b"5\n", Err(Refusal::Chunk)),
            (b"\r\n", Err(Refusal::Chunk)),
            (b"0x5\r\n", Err(Refusal::Chunk)),
            (b"+5\r\n", Err(Refusal::Chunk)),
            (b" 5\r\n", Err(Refusal::Chunk)),
            (b"5 \r\n", Err(Refusal::Chunk)),
            (b"10000000000000000\r\n", Err(Refusal::Chunk)),
        ] {
            assert_eq!(chunk_size(line), expected, "{}", line.escape_ascii());
        }
    }
}
