//! What an application sends before its connection is answered: it goes with the CONNECT, which saves a
//! round trip.
//!
//! At most one buffer is read, only when the CONNECT is on a tunnel whose peer was verified, and it is
//! kept until the answer. A peer that did not take the stream gets it again, or another peer does; what
//! an application may have seen is never sent twice.

use std::io;

use ambit_hbone::buffer::BufferPool;
use ambit_hbone::socket::Socket;
use ambit_hbone::tunnel::{StreamError, TunnelStream};
use ambit_mesh::decide::OutboundDecision;

use super::Failure;

/// The first octets of one connection.
pub(super) struct Early<'a> {
    application: &'a Socket,
    octets: Option<Vec<u8>>,
    /// Whether they went out on the stream that is asked now.
    sent: bool,
    /// That stream was answered: what is sent on it reaches the far application.
    answered: bool,
}

impl<'a> Early<'a> {
    /// Nothing is read so far.
    pub(super) fn of(application: &'a Socket) -> Self {
        Self { application, octets: None, sent: false, answered: false }
    }

    /// Sends what there is behind the CONNECT of a new stream, if no retry may be owed for it.
    ///
    /// # Errors
    /// The application's.
    pub(super) fn send(
        &mut self,
        stream: &mut TunnelStream,
        decision: &OutboundDecision,
        buffers: &BufferPool,
    ) -> io::Result<()> {
        self.sent = false;
        if owes_retry(decision) {
            return Ok(());
        }
        if self.octets.is_none() {
            self.octets = Some(read(self.application, buffers)?);
        }
        self.sent = self.octets.as_ref().is_some_and(|octets| stream.send_early(octets));
        Ok(())
    }

    /// Sends on an answered stream what was read and did not go early.
    ///
    /// # Errors
    /// When the stream ends.
    pub(super) async fn settle(&mut self, stream: &mut TunnelStream) -> Result<(), StreamError> {
        self.answered = true;
        match self.octets.take() {
            Some(octets) if !self.sent => stream.send_all(&octets).await,
            Some(_) | None => Ok(()),
        }
    }

    /// Whether the application at the far end may have seen some of it although the stream failed.
    pub(super) fn may_have_arrived(&self, failure: &Failure) -> bool {
        self.answered || (self.sent && !failure.says_not_delivered())
    }
}

/// A connection to a service is tried on another endpoint when the first is lost, also after the CONNECT
/// went out: then nothing may have followed it.
fn owes_retry(decision: &OutboundDecision) -> bool {
    decision.service.is_some()
}

/// What waits at the application's socket now; empty when nothing does. Its end is left for the relay to
/// find again.
fn read(application: &Socket, buffers: &BufferPool) -> io::Result<Vec<u8>> {
    let mut piece = buffers.take();
    let read = application.read_now(&mut piece[..MAX_EARLY]);
    let octets = read.map(|count| piece[..count.unwrap_or(0)].to_vec());
    buffers.give(piece);
    octets
}

/// Octets that may go before the answer: a request, and one full frame of the default size.
const MAX_EARLY: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::rc::Rc;

    use ambit_hbone::codec::Reason;
    use ambit_hbone::tunnel::TunnelEnd;

    use super::*;

    /// Sending again what an application has seen would do its work twice.
    #[tokio::test]
    async fn octets_are_sent_again_only_where_nobody_can_have_seen_them() {
        let next_hop: SocketAddr = "10.0.0.1:15008".parse().unwrap();
        let reset = |reason| Failure::Stream { next_hop, source: StreamError::Reset { reason } };
        let lost =
            Failure::Stream { next_hop, source: StreamError::TunnelLost(Rc::new(TunnelEnd::PeerClosed)) };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let socket = Socket::new(stream).unwrap();
        let early = |sent, answered| Early { sent, answered, ..Early::of(&socket) };
        for (rule, early, failure, arrived) in [
            ("nothing was sent", early(false, false), lost, false),
            ("the peer did not take it", early(true, false), reset(Reason::RefusedStream), false),
            ("no application accepted", early(true, false), Failure::Status { next_hop, status: 503 }, false),
            ("it was on its way", early(true, false), reset(Reason::Cancel), true),
            ("no answer", early(true, false), Failure::ResponseTimeout { next_hop, seconds: 1 }, true),
            ("after the answer", early(false, true), reset(Reason::RefusedStream), true),
        ] {
            assert_eq!(early.may_have_arrived(&failure), arrived, "{rule}");
        }
    }
}
