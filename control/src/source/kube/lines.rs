//! The lines of a response that goes on.

use bytes::BytesMut;
use http_body_util::BodyExt;
use kube::client::Body;

use super::request::Failure;

/// An object in a watch is at most this long: etcd takes 1.5 MiB, and JSON is longer than what is
/// stored. A longer line is skipped.
const LONGEST_LINE: usize = 16 * 1024 * 1024;

/// A body, line by line.
#[derive(Debug)]
pub(super) struct Lines {
    body: Body,
    buffer: BytesMut,
    /// How much of the buffer is known to have no end of a line.
    searched: usize,
    is_skipping: bool,
}

impl Lines {
    pub(super) fn new(body: Body) -> Self {
        Self { body, buffer: BytesMut::new(), searched: 0, is_skipping: false }
    }

    /// The next line; `None` at the end. What follows the last end of a line is no line: the
    /// connection broke in the middle of it.
    ///
    /// Cancelling it loses nothing.
    pub(super) async fn next(&mut self) -> Result<Option<String>, Failure> {
        loop {
            while let Some(line) = self.take_line() {
                if !std::mem::take(&mut self.is_skipping) && !line.trim_ascii().is_empty() {
                    let text =
                        std::str::from_utf8(&line).map_err(|_| Failure::garbled("a line of a watch"))?;
                    return Ok(Some(text.to_owned()));
                }
            }
            if self.buffer.len() > LONGEST_LINE {
                tracing::warn!(octets = self.buffer.len(), "an object is too long to be read");
                (self.is_skipping, self.searched) = (true, 0);
                self.buffer.clear();
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(Failure::unreachable(&error)),
            }
        }
    }

    fn take_line(&mut self) -> Option<BytesMut> {
        match self.buffer[self.searched..].iter().position(|octet| *octet == b'\n') {
            Some(at) => {
                let line = self.buffer.split_to(self.searched + at + 1);
                self.searched = 0;
                Some(line)
            }
            None => {
                self.searched = self.buffer.len();
                None
            }
        }
    }
}
