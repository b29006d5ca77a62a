//! Header blocks in HEADERS and CONTINUATION frames (RFC 9113 §4.3 and §6.10): put together, and
//! bounded while they are.

use std::borrow::Cow;
use std::ops::Range;

use super::error::ConnectionError;
use super::floods::{Flood, MAX_CONTINUATIONS};
use super::frame::{FrameHead, Kind, flag};

/// A whole header block, still compressed.
#[derive(Debug)]
pub(super) struct Block<'a> {
    pub(super) stream: u32,
    /// Whether HEADERS had END_STREAM.
    pub(super) ends: bool,
    pub(super) octets: Cow<'a, [u8]>,
}

#[derive(Debug)]
pub(super) struct BlockAssembly {
    open: Option<OpenBlock>,
    max_size: usize,
}

/// A block that waits for CONTINUATION.
#[derive(Debug)]
struct OpenBlock {
    stream: u32,
    ends: bool,
    octets: Vec<u8>,
    continuations: u32,
}

impl BlockAssembly {
    pub(super) fn new(max_size: usize) -> Self {
        Self { open: None, max_size }
    }

    /// Whether a frame may come now, judged by its header so that nothing excessive is collected.
    ///
    /// RFC 9113 §4.3: the frames of a block are "a contiguous sequence of frames, with no interleaved
    /// frames of any other type or from any other stream".
    pub(super) fn check(&mut self, head: FrameHead) -> Result<(), ConnectionError> {
        let collected = match (head.kind, &mut self.open) {
            (Kind::Headers, None) => 0,
            (Kind::Continuation, Some(block)) if block.stream == head.stream => {
                block.continuations += 1;
                if block.continuations > MAX_CONTINUATIONS {
                    return Err(ConnectionError::Flood { flood: Flood::Continuation });
                }
                block.octets.len()
            }
            (Kind::Continuation, _) => {
                return Err(ConnectionError::protocol("CONTINUATION continues nothing"));
            }
            (_, Some(_)) => return Err(ConnectionError::protocol("a header block is interrupted")),
            (_, None) => return Ok(()),
        };
        // A list counts 32 octets for each field beyond its text, more than any literal needs: a
        // block that is larger than the list it may hold is not worth collecting.
        if collected + head.length > self.max_size {
            return Err(ConnectionError::Flood { flood: Flood::HeaderBlock });
        }
        Ok(())
    }

    /// Takes the payload of HEADERS or CONTINUATION; returns the block once it is whole.
    pub(super) fn add<'a>(
        &mut self,
        head: FrameHead,
        payload: Cow<'a, [u8]>,
    ) -> Result<Option<Block<'a>>, ConnectionError> {
        let whole = head.has(flag::END_HEADERS);
        let Some(mut block) = self.open.take() else {
            let fragment = cut(fragment(head, &payload)?, payload);
            let ends = head.has(flag::END_STREAM);
            if whole {
                return Ok(Some(Block { stream: head.stream, ends, octets: fragment }));
            }
            let octets = fragment.into_owned();
            self.open = Some(OpenBlock { stream: head.stream, ends, octets, continuations: 0 });
            return Ok(None);
        };
        block.octets.extend_from_slice(&payload);
        if whole {
            return Ok(Some(Block { stream: block.stream, ends: block.ends, octets: block.octets.into() }));
        }
        self.open = Some(block);
        Ok(None)
    }
}

/// Where the fragment stands in a HEADERS frame (RFC 9113 §6.2): behind the pad length and the
/// (deprecated, ignored) priority, before the padding.
fn fragment(head: FrameHead, payload: &[u8]) -> Result<Range<usize>, ConnectionError> {
    const PRIORITY: usize = 5;
    let mut start = 0;
    let mut padding = 0;
    if head.has(flag::PADDED) {
        let pad_length =
            payload.first().ok_or(ConnectionError::frame_size("a padded frame has no pad length"))?;
        padding = usize::from(*pad_length);
        start = 1;
    }
    if head.has(flag::PRIORITY) {
        start += PRIORITY;
        if payload.len() < start {
            return Err(ConnectionError::frame_size("HEADERS has no room for its priority"));
        }
    }
    match payload.len().checked_sub(padding) {
        Some(end) if start <= end => Ok(start..end),
        Some(_) | None => Err(ConnectionError::protocol("padding exceeds its frame")),
    }
}

fn cut(range: Range<usize>, payload: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    match payload {
        Cow::Borrowed(octets) => Cow::Borrowed(&octets[range]),
        Cow::Owned(octets) => Cow::Owned(octets[range].to_vec()),
    }
}
