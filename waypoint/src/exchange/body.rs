//! Bodies from one side to the other, with their trailers, whatever each side speaks.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::HeaderMap;

use crate::h1::{BodyReader, BodyWriter, Frame};
use crate::head::strip_trailers;
use crate::record::Flow;

/// A body that is read.
pub enum Body {
    /// There is none.
    Nothing,
    /// Of HTTP/1.
    Http1(BodyReader),
    /// Of HTTP/2.
    Http2(RecvStream),
}

impl Body {
    /// The next piece, or `None` behind the last.
    async fn frame(&mut self) -> Result<Option<Frame>, String> {
        match self {
            Self::Nothing => Ok(None),
            Self::Http1(reader) => reader.frame().await.map_err(|error| error.to_string()),
            Self::Http2(stream) => next_of_h2(stream).await.map_err(|error| error.to_string()),
        }
    }

    /// Reads and forgets what is left, if it is little and comes soon.
    pub(super) async fn discard(&mut self, limit: usize, time: Duration) {
        let reading = async {
            let mut octets = 0;
            while let Ok(Some(frame)) = self.frame().await {
                if let Frame::Data(data) = frame {
                    octets += data.len();
                }
                if octets > limit {
                    return;
                }
            }
        };
        // What comes later ends with the connection.
        let _ = tokio::time::timeout(time, reading).await;
    }

    /// Whether all of it was read.
    pub fn is_done(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::Http1(reader) => reader.is_done(),
            Self::Http2(stream) => stream.is_end_stream(),
        }
    }
}

async fn next_of_h2(stream: &mut RecvStream) -> Result<Option<Frame>, h2::Error> {
    match next_frame(stream).await {
        // RFC 9113 §8.1: a server that has answered and wants no more of the request says so.
        Err(error) if error.is_reset() && error.is_remote() && error.reason() == Some(Reason::NO_ERROR) => {
            Ok(None)
        }
        frame => frame,
    }
}

async fn next_frame(stream: &mut RecvStream) -> Result<Option<Frame>, h2::Error> {
    if let Some(data) = stream.data().await {
        let data = data?;
        // The next piece is asked for once this one was passed on, so that no more than the window
        // waits here.
        stream.flow_control().release_capacity(data.len())?;
        return Ok(Some(Frame::Data(data)));
    }
    Ok(stream.trailers().await?.map(|mut trailers| {
        strip_trailers(&mut trailers);
        Frame::Trailers(trailers)
    }))
}

/// A body that is written.
pub enum Sink {
    /// There is none.
    Nothing,
    /// Of HTTP/1.
    Http1(BodyWriter),
    /// Of HTTP/2.
    Http2(SendStream<Bytes>),
}

impl Sink {
    async fn data(&mut self, piece: Bytes) -> io::Result<()> {
        match self {
            Self::Nothing => Ok(()),
            Self::Http1(writer) => writer.data(&piece).await,
            Self::Http2(stream) => send(stream, piece).await,
        }
    }

    async fn end(&mut self, trailers: Option<HeaderMap>) -> io::Result<()> {
        match self {
            Self::Nothing => Ok(()),
            Self::Http1(writer) => writer.end(trailers.as_ref()).await,
            Self::Http2(stream) => match trailers {
                Some(trailers) => stream.send_trailers(trailers),
                None => stream.send_data(Bytes::new(), true),
            }
            .map_err(io::Error::other),
        }
    }

    /// Waits until the reader gives the body up. Of HTTP/1 a write tells.
    async fn given_up(&mut self) {
        match self {
            Self::Nothing | Self::Http1(_) => std::future::pending().await,
            Self::Http2(stream) => {
                let _ = std::future::poll_fn(|cx| stream.poll_reset(cx)).await;
            }
        }
    }
}

async fn send(stream: &mut SendStream<Bytes>, mut piece: Bytes) -> io::Result<()> {
    while !piece.is_empty() {
        stream.reserve_capacity(piece.len());
        let capacity = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
        let capacity = match capacity {
            Some(capacity) => capacity.map_err(io::Error::other)?,
            None => return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the stream has ended")),
        };
        let part = piece.split_to(capacity.min(piece.len()));
        stream.send_data(part, false).map_err(io::Error::other)?;
    }
    Ok(())
}

/// Which side ended a transfer early.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// Where the body comes from.
    #[error("receiving: {0}")]
    Reading(String),
    /// Where it goes.
    #[error("sending: {0}")]
    Writing(io::Error),
}

/// Passes a body on to its end. `edit` has the last word about its trailers.
pub(super) async fn pass(
    body: &mut Body,
    sink: &mut Sink,
    flow: &Flow,
    edit: &dyn Fn(&mut HeaderMap),
) -> Result<(), Broken> {
    loop {
        let frame = tokio::select! {
            biased;
            frame = body.frame() => frame.map_err(Broken::Reading)?,
            // What was read is passed on first; cancelling the read lost nothing.
            () = sink.given_up() => {
                return Err(Broken::Writing(io::Error::new(io::ErrorKind::BrokenPipe, "the reader gave up")));
            }
        };
        match frame {
            Some(Frame::Data(piece)) => {
                flow.passed(&piece);
                sink.data(piece).await.map_err(Broken::Writing)?;
            }
            Some(Frame::Trailers(mut trailers)) => {
                edit(&mut trailers);
                return sink.end(Some(trailers)).await.map_err(Broken::Writing);
            }
            None => return sink.end(None).await.map_err(Broken::Writing),
        }
    }
}
