//! A client's and a server's end of a tunnel, and the wire between them.
//!
//! Each end treats its buffers as the tunnel's driver does: memory is borrowed from the worker's pool
//! when there is something to encrypt or to read, and given back when it is drained. The wire copies
//! nothing: what one end encrypted becomes what the other reads.

use std::sync::Arc;

use ambit_hbone::buffer::{Buffer, BufferPool};
use ambit_hbone::codec::{Codec, Event, Settings};
use ambit_hbone::tls::TlsSession;

use crate::certificates::Root;

/// One end.
pub(crate) struct End {
    pub(crate) codec: Codec,
    session: TlsSession,
    buffers: BufferPool,
}

/// Both, of one worker.
pub(crate) struct Ends {
    pub(crate) client: End,
    pub(crate) server: End,
}

impl Ends {
    /// A tunnel after its handshake, with nothing left to be said.
    pub(crate) fn connected() -> Self {
        let root = Root::new();
        let (client_id, server_id) = (root.workload("client"), root.workload("server"));
        let buffers = BufferPool::new();
        let client = End {
            codec: Codec::client(Settings::CLIENT),
            session: TlsSession::client(Arc::clone(&client_id.client)).unwrap(),
            buffers: buffers.clone(),
        };
        let server = End {
            codec: Codec::server(Settings::SERVER),
            session: TlsSession::server(Arc::clone(&server_id.server)).unwrap(),
            buffers,
        };
        let mut ends = Self { client, server };
        ends.client.session.receive().unwrap();
        while ends.client.session.is_handshaking() || ends.server.session.is_handshaking() {
            ends.client.session.transmit_to(&mut ends.server.session);
            ends.server.session.transmit_to(&mut ends.client.session);
        }
        for _ in 0..4 {
            ends.carry_to_server(|_, _| {});
            ends.carry_to_client(|_, _| {});
        }
        assert!(ends.client.codec.output().is_empty() && ends.server.codec.output().is_empty());
        ends
    }

    /// Carries what the client has to say to the server, which hands out what it means.
    pub(crate) fn carry_to_server(&mut self, on_event: impl FnMut(&mut Codec, Event<'_>)) {
        self.client.send();
        self.client.session.transmit_to(&mut self.server.session);
        self.server.dispatch(on_event);
    }

    /// The same the other way.
    pub(crate) fn carry_to_client(&mut self, on_event: impl FnMut(&mut Codec, Event<'_>)) {
        self.server.send();
        self.server.session.transmit_to(&mut self.client.session);
        self.client.dispatch(on_event);
    }
}

impl End {
    /// Memory for the codec to write into, as a flow lends it before it reads its application.
    pub(crate) fn lend(&mut self) {
        if self.codec.output().is_empty() {
            let unused = self.codec.lend_buffer(self.buffers.take());
            self.buffers.give(unused);
        }
    }

    /// Everything that waits, in one encryption.
    fn send(&mut self) {
        if self.codec.output().is_empty() {
            return;
        }
        attach_memory(self.session.ciphertext(), &self.buffers);
        let octets = self.codec.output().len();
        self.session.encrypt(self.codec.output()).unwrap();
        self.codec.consume_output(octets);
        if let Some(memory) = self.codec.take_buffer() {
            self.buffers.give(memory);
        }
    }

    fn dispatch(&mut self, mut on_event: impl FnMut(&mut Codec, Event<'_>)) {
        if self.session.wire().is_empty() {
            return;
        }
        attach_memory(self.session.plaintext(), &self.buffers);
        assert!(!self.session.receive().unwrap(), "the peer closed");
        let plaintext = self.session.plaintext();
        let mut input = plaintext.filled();
        let octets = input.len();
        while let Some(event) = self.codec.receive(&mut input).unwrap() {
            on_event(&mut self.codec, event);
        }
        plaintext.consume(octets);
        detach_memory(self.session.plaintext(), &self.buffers);
        detach_memory(self.session.wire(), &self.buffers);
    }
}

/// Moves octets from one session to the other.
trait Transmit {
    fn transmit_to(&mut self, peer: &mut Self);
}

impl Transmit for TlsSession {
    fn transmit_to(&mut self, peer: &mut Self) {
        assert!(peer.wire().is_empty(), "the peer left an unfinished record, and whole ones were sent");
        std::mem::swap(self.ciphertext(), peer.wire());
        // During the handshake the session itself answers.
        if self.is_handshaking() || peer.is_handshaking() {
            peer.receive().unwrap();
        }
    }
}

fn attach_memory(buffer: &mut Buffer, buffers: &BufferPool) {
    if !buffer.has_memory() {
        *buffer = Buffer::with_memory(buffers.take());
    }
}

fn detach_memory(buffer: &mut Buffer, buffers: &BufferPool) {
    if let Some(memory) = buffer.take_memory() {
        buffers.give(memory);
    }
}
