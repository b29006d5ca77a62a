//! TLS 1.3 of a tunnel, as a machine over buffers: no socket, no waiting.
//!
//! It turns octets from the wire into plaintext and plaintext into octets for the wire, through
//! rustls' unbuffered interface: everything one turn of a worker produced is encrypted together.
//! Who the peer is, and whether that is who was expected, is decided by its owner.

use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus,
};
use rustls::{ClientConfig, ServerConfig};

use crate::buffer::Buffer;

/// One end of a TLS connection, with the octets that wait on either side of it.
///
/// rustls keeps positions into the octets that it was last shown: a handshake message split over
/// records stays in `wire` until it is whole. That is why the buffers live here and every step is
/// shown all of `wire`.
pub struct TlsSession {
    side: Side,
    wire: Buffer,
    plaintext: Buffer,
    ciphertext: Buffer,
    peer_closed: bool,
}

enum Side {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// Why a TLS session ended.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// rustls refused what the peer sent, or the peer sent an alert.
    #[error("TLS: {0}")]
    Protocol(#[from] rustls::Error),
    /// The configuration asks for something that cannot start.
    #[error("TLS session cannot encrypt: {0}")]
    Encrypt(String),
}

impl TlsSession {
    /// The connecting end. The server's name is not sent (Istio: `enable_sni=false`), and the
    /// configuration's verifier does not look at it.
    ///
    /// # Errors
    /// When the configuration cannot start a handshake.
    pub fn client(config: Arc<ClientConfig>) -> Result<Self, TlsError> {
        let name = ServerName::try_from("hbone.invalid").expect("a valid DNS name");
        Ok(Self::new(Side::Client(UnbufferedClientConnection::new(config, name)?)))
    }

    /// The accepting end.
    ///
    /// # Errors
    /// When the configuration cannot start a handshake.
    pub fn server(config: Arc<ServerConfig>) -> Result<Self, TlsError> {
        Ok(Self::new(Side::Server(UnbufferedServerConnection::new(config)?)))
    }

    fn new(side: Side) -> Self {
        Self {
            side,
            wire: Buffer::default(),
            plaintext: Buffer::default(),
            ciphertext: Buffer::default(),
            peer_closed: false,
        }
    }

    /// Where octets from the wire go, before [`Self::receive`].
    pub fn wire(&mut self) -> &mut Buffer {
        &mut self.wire
    }

    /// What was decrypted and waits to be taken.
    pub fn plaintext(&mut self) -> &mut Buffer {
        &mut self.plaintext
    }

    /// What waits to be written to the wire.
    pub fn ciphertext(&mut self) -> &mut Buffer {
        &mut self.ciphertext
    }

    /// Whether the handshake is still going on.
    pub fn is_handshaking(&self) -> bool {
        match &self.side {
            Side::Client(connection) => connection.is_handshaking(),
            Side::Server(connection) => connection.is_handshaking(),
        }
    }

    /// The peer's certificates, leaf first, once the handshake has verified them.
    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        match &self.side {
            Side::Client(connection) => connection.peer_certificates(),
            Side::Server(connection) => connection.peer_certificates(),
        }
        .unwrap_or_default()
    }

    /// The protocol agreed on by ALPN.
    pub fn alpn_protocol(&self) -> Option<&[u8]> {
        match &self.side {
            Side::Client(connection) => connection.alpn_protocol(),
            Side::Server(connection) => connection.alpn_protocol(),
        }
    }

    /// Takes the octets in [`Self::wire`]: what they decrypt to is appended to [`Self::plaintext`],
    /// what they are answered with (handshake, alerts) to [`Self::ciphertext`]. An unfinished record
    /// stays. True once the peer has said that it sends no more (`close_notify`).
    ///
    /// # Errors
    /// When the peer broke the protocol or is not trusted. The alert for it waits to be written.
    pub fn receive(&mut self) -> Result<bool, TlsError> {
        loop {
            match self.step(&[]) {
                Ok(Step::Again) => {}
                Ok(Step::PeerClosed) => self.peer_closed = true,
                Ok(Step::Blocked) => return Ok(self.peer_closed),
                Err(error) => {
                    self.collect_alert();
                    return Err(error);
                }
            }
        }
    }

    /// Encrypts `octets`, to be written to the wire. Only after the handshake.
    ///
    /// # Errors
    /// When the session can no longer encrypt.
    pub fn encrypt(&mut self, octets: &[u8]) -> Result<(), TlsError> {
        loop {
            match self.step(octets)? {
                Step::Again => {}
                Step::PeerClosed => self.peer_closed = true,
                Step::Blocked => return Ok(()),
            }
        }
    }

    /// Says that nothing more follows (`close_notify`), so that the peer can tell an end from a cut.
    pub fn close(&mut self) {
        let wire = self.wire.filled_mut();
        match &mut self.side {
            Side::Client(connection) => {
                close_notify(connection.process_tls_records(wire), &mut self.ciphertext)
            }
            Side::Server(connection) => {
                close_notify(connection.process_tls_records(wire), &mut self.ciphertext)
            }
        }
    }

    fn step(&mut self, to_encrypt: &[u8]) -> Result<Step, TlsError> {
        let Self { side, wire, plaintext, ciphertext, .. } = self;
        let octets = wire.filled_mut();
        let (discard, step) = match side {
            Side::Client(connection) => {
                take_step(connection.process_tls_records(octets), to_encrypt, plaintext, ciphertext)
            }
            Side::Server(connection) => {
                take_step(connection.process_tls_records(octets), to_encrypt, plaintext, ciphertext)
            }
        };
        wire.consume(discard);
        step
    }

    /// After an error rustls still has an alert to send. It must not be shown the wire again once it
    /// has nothing more to say.
    fn collect_alert(&mut self) {
        while self.wants_write() {
            if self.step(&[]).is_err() {
                return;
            }
        }
    }

    fn wants_write(&self) -> bool {
        match &self.side {
            Side::Client(connection) => connection.wants_write(),
            Side::Server(connection) => connection.wants_write(),
        }
    }
}

/// The largest alert record: header, alert, content type and tag.
const MAX_ALERT: usize = 64;

/// Octets that a record of up to 16 KiB of plaintext grows by: header, content type, tag
/// (RFC 8446 §5.2), with room to spare.
const RECORD_OVERHEAD: usize = 64;

/// RFC 8446 §5.1: a record holds at most 2^14 octets of plaintext.
const MAX_RECORD_PLAINTEXT: usize = 16 * 1024;

enum Step {
    Again,
    Blocked,
    PeerClosed,
}

fn take_step<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    to_encrypt: &[u8],
    plaintext: &mut Buffer,
    ciphertext: &mut Buffer,
) -> (usize, Result<Step, TlsError>) {
    let UnbufferedStatus { mut discard, state } = status;
    let step = match state {
        Err(error) => Err(error.into()),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => {
            let mut step = Ok(Step::Again);
            while let Some(record) = traffic.next_record() {
                match record {
                    Ok(record) => {
                        discard += record.discard;
                        plaintext.extend(record.payload);
                    }
                    Err(error) => step = Err(error.into()),
                }
            }
            step
        }
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            let written = with_room(ciphertext, 0, |room| {
                data.encode(room).map_err(|error| match error {
                    EncodeError::InsufficientSize(size) => NoRoom::Needs(size),
                    EncodeError::AlreadyEncoded => NoRoom::Never(error.to_string()),
                })
            });
            written.map(|()| Step::Again)
        }
        Ok(ConnectionState::TransmitTlsData(transmitted)) => {
            transmitted.done();
            Ok(Step::Again)
        }
        Ok(ConnectionState::WriteTraffic(_)) if to_encrypt.is_empty() => Ok(Step::Blocked),
        Ok(ConnectionState::WriteTraffic(mut traffic)) => {
            let records = to_encrypt.len().div_ceil(MAX_RECORD_PLAINTEXT);
            let written = with_room(ciphertext, to_encrypt.len() + records * RECORD_OVERHEAD, |room| {
                traffic.encrypt(to_encrypt, room).map_err(|error| match error {
                    EncryptError::InsufficientSize(size) => NoRoom::Needs(size),
                    EncryptError::EncryptExhausted => NoRoom::Never(error.to_string()),
                })
            });
            written.map(|()| Step::Blocked)
        }
        Ok(ConnectionState::PeerClosed) => Ok(Step::PeerClosed),
        // rustls marks the enum non-exhaustive. Early data is never enabled; what else may come
        // has nothing for us to do.
        Ok(_) => Ok(Step::Blocked),
    };
    (discard, step)
}

enum NoRoom {
    Needs(InsufficientSizeError),
    Never(String),
}

/// Calls `write` with at least `min` octets of room, and once more with the room it asks for.
fn with_room(
    buffer: &mut Buffer,
    min: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, NoRoom>,
) -> Result<(), TlsError> {
    let mut room = min;
    for _ in 0..2 {
        match write(buffer.spare(room)) {
            Ok(written) => {
                buffer.fill(written);
                return Ok(());
            }
            Err(NoRoom::Needs(InsufficientSizeError { required_size })) => room = required_size,
            Err(NoRoom::Never(reason)) => return Err(TlsError::Encrypt(reason)),
        }
    }
    Err(TlsError::Encrypt(format!("{room} octets of room were not enough")))
}

/// The session ends with it, so what this step discards of the wire does not matter.
fn close_notify<Data>(status: UnbufferedStatus<'_, '_, Data>, ciphertext: &mut Buffer) {
    // During the handshake or after an error there is nobody to say it to.
    if let Ok(ConnectionState::WriteTraffic(mut traffic)) = status.state {
        let written = traffic.queue_close_notify(ciphertext.spare(MAX_ALERT)).unwrap_or_default();
        ciphertext.fill(written);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record that holds the first octets of a ClientHello and promises more.
    const UNFINISHED_HELLO: &[u8] = b"\x16\x03\x01\x00\x06\x01\x00\x02\x00\x03\x03";

    fn server() -> TlsSession {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(rustls::server::ResolvesServerCertUsingSni::new()));
        TlsSession::server(Arc::new(config)).unwrap()
    }

    #[test]
    fn a_message_split_over_records_may_be_followed_by_any_call() {
        let mut session = server();
        session.wire().extend(UNFINISHED_HELLO);
        assert!(!session.receive().unwrap());
        session.encrypt(b"too early").unwrap();
        session.close();
        assert!(session.ciphertext().is_empty());
        session.wire().extend(b"\x16\x03\x01\x00\x01\x00");
        assert!(!session.receive().unwrap());
    }

    #[test]
    fn nonsense_is_answered_with_an_alert() {
        let mut session = server();
        session.wire().extend(b"GET / HTTP/1.1\r\nhost: example\r\n\r\n");
        assert!(session.receive().is_err());
        assert_eq!(session.ciphertext().filled()[0], 21, "not an alert record");
    }
}
