//! Handshakes in memory, with nothing but rustls between the two ends.

use std::io::{Read, Write};
use std::time::{Duration, SystemTime};

use ambit_mesh::identity::IdentitySet;
use ambit_mesh::policy::Peer;
use rcgen::ExtendedKeyUsagePurpose;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, HandshakeKind, PeerIncompatible, ProtocolVersion, ServerConnection};

use super::*;
use crate::spiffe::NotASpiffeLeaf;
use crate::testing::{Authority, HOUR, Leaf, cart, id, web};
use crate::verify::{PeerRefused, accepted_peer, expect_peer};

type Ends = (ClientConnection, ServerConnection);

/// Which end refused, and why.
#[derive(Debug)]
enum Refused {
    ByClient(rustls::Error),
    ByServer(rustls::Error),
}

fn handshake(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Result<Ends, Refused> {
    let anybody = ServerName::try_from("10.0.0.1").unwrap();
    let mut client = ClientConnection::new(client, anybody).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    let mut wire = Vec::new();
    while client.is_handshaking() || server.is_handshaking() || client.wants_write() || server.wants_write() {
        wire.clear();
        client.write_tls(&mut wire).unwrap();
        feed(&mut wire.as_slice(), |bytes| server.read_tls(bytes));
        server.process_new_packets().map_err(Refused::ByServer)?;
        wire.clear();
        server.write_tls(&mut wire).unwrap();
        feed(&mut wire.as_slice(), |bytes| client.read_tls(bytes));
        client.process_new_packets().map_err(Refused::ByClient)?;
    }
    Ok((client, server))
}

fn feed(bytes: &mut &[u8], mut read: impl FnMut(&mut &[u8]) -> std::io::Result<usize>) {
    while !bytes.is_empty() {
        read(bytes).unwrap();
    }
}

struct World {
    authority: Authority,
    now: SystemTime,
}

impl World {
    fn new() -> Self {
        Self { authority: Authority::root("root"), now: SystemTime::now() }
    }

    fn identity(&self, id: &SpiffeId) -> TlsIdentity {
        identity(&self.authority.certificate(id, self.now))
    }

    fn identity_with(
        &self,
        id: &SpiffeId,
        change: impl FnOnce(&mut Leaf),
        checked_at: SystemTime,
    ) -> TlsIdentity {
        let mut leaf = Leaf::of(id, self.now);
        change(&mut leaf);
        identity(&self.authority.certificate_with(id, &leaf, vec![self.authority.der()], checked_at))
    }
}

fn identity(certificate: &WorkloadCertificate) -> TlsIdentity {
    TlsIdentity::new(certificate, 1, &TrustPolicy::default()).unwrap()
}

fn expected(ids: &[SpiffeId]) -> IdentitySet {
    IdentitySet::new(ids[0].clone(), ids[1..].iter().cloned())
}

fn peer_refusal(error: &rustls::Error) -> Option<PeerRefused> {
    let rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)) = error else {
        return None;
    };
    other.0.downcast_ref().cloned()
}

#[test]
fn two_workloads_of_the_mesh_know_each_other() {
    let world = World::new();
    let (client, server) = handshake(world.identity(&web()).client, world.identity(&cart()).server).unwrap();
    assert_eq!(accepted_peer(server.peer_certificates().unwrap()).unwrap().id(), &web());
    assert_eq!(expect_peer(client.peer_certificates().unwrap(), &expected(&[cart()])).unwrap().id(), &cart());
    for alpn in [client.alpn_protocol(), server.alpn_protocol()] {
        assert_eq!(alpn, Some(ALPN_H2));
    }
    assert_eq!(server.server_name(), None);
    assert_eq!(client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(
        client.negotiated_cipher_suite().unwrap().suite(),
        rustls::CipherSuite::TLS13_AES_128_GCM_SHA256
    );
    assert_eq!(client.negotiated_key_exchange_group().unwrap().name(), rustls::NamedGroup::X25519MLKEM768);
}

#[test]
fn a_second_connection_is_a_full_handshake_again() {
    let world = World::new();
    let (web, cart) = (world.identity(&web()), world.identity(&cart()));
    for _ in 0..2 {
        let (mut client, mut server) = handshake(web.client.clone(), cart.server.clone()).unwrap();
        // Tickets, if there were any, would come with the first bytes of data.
        server.writer().write_all(b"x").unwrap();
        let mut wire = Vec::new();
        server.write_tls(&mut wire).unwrap();
        feed(&mut wire.as_slice(), |bytes| client.read_tls(bytes));
        assert_eq!(client.process_new_packets().unwrap().plaintext_bytes_to_read(), 1);
        client.reader().read_exact(&mut [0]).unwrap();
        assert_eq!(client.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(client.tls13_tickets_received(), 0);
    }
}

#[test]
fn the_caller_finds_out_that_it_reached_somebody_else() {
    let world = World::new();
    let (client, _) = handshake(world.identity(&web()).client, world.identity(&web()).server).unwrap();
    let presented = client.peer_certificates().unwrap();
    let refused = PeerRefused::Unexpected { presented: web(), expected: expected(&[cart()]) };
    assert_eq!(expect_peer(presented, &expected(&[cart()])), Err(refused));
    let either = expect_peer(presented, &expected(&[cart(), web()])).unwrap();
    assert_eq!(Peer::from(either), Peer::Verified(web()));
    assert_eq!(expect_peer(&[], &expected(&[web()])), Err(PeerRefused::NoCertificate));
}

#[test]
fn a_client_without_certificate_is_refused_by_the_server() {
    let world = World::new();
    let roots = root_store(&[world.authority.der()]).unwrap();
    let mut anonymous = ClientConfig::builder_with_provider(provider().clone())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(MeshServerVerifier::new(roots)))
        .with_no_client_auth();
    anonymous.alpn_protocols = vec![ALPN_H2.to_vec()];
    let refused = handshake(Arc::new(anonymous), world.identity(&cart()).server).unwrap_err();
    assert!(matches!(refused, Refused::ByServer(rustls::Error::NoCertificatesPresented)), "{refused:?}");
}

#[test]
fn a_client_of_another_trust_domain_is_refused_unless_it_is_an_alias() {
    let world = World::new();
    let stranger = id("spiffe://elsewhere.example/ns/shop/sa/web");
    let client = || world.identity(&stranger).client;
    match handshake(client(), world.identity(&cart()).server).unwrap_err() {
        Refused::ByServer(error) => {
            assert_eq!(peer_refusal(&error), Some(PeerRefused::TrustDomain { presented: stranger.clone() }));
        }
        Refused::ByClient(error) => panic!("{error}"),
    }
    let trust = TrustPolicy { aliases: [stranger.trust_domain().clone()].into() };
    let certificate = world.authority.certificate(&cart(), world.now);
    let open = TlsIdentity::new(&certificate, 1, &trust).unwrap();
    assert!(handshake(client(), open.server.clone()).is_ok());
    assert!(handshake(world.identity(&web()).client, open.server).is_ok(), "its own stays accepted");
}

#[test]
fn an_expired_certificate_is_refused_by_either_end() {
    let world = World::new();
    let then = world.now - 48 * HOUR;
    let stale = |id: &SpiffeId| {
        let expire = |leaf: &mut Leaf| (leaf.not_before, leaf.not_after) = (then - HOUR, then + HOUR);
        world.identity_with(id, expire, then)
    };
    let refused = handshake(stale(&web()).client, world.identity(&cart()).server).unwrap_err();
    assert!(matches!(refused, Refused::ByServer(rustls::Error::InvalidCertificate(_))), "{refused:?}");
    let refused = handshake(world.identity(&web()).client, stale(&cart()).server).unwrap_err();
    assert!(matches!(refused, Refused::ByClient(rustls::Error::InvalidCertificate(_))), "{refused:?}");
}

#[test]
fn a_certificate_of_another_root_is_refused_by_either_end() {
    // The same name and the same identity: only the key differs.
    let (world, other) = (World::new(), World::new());
    let refused = handshake(other.identity(&web()).client, world.identity(&cart()).server).unwrap_err();
    assert!(matches!(refused, Refused::ByClient(_)), "{refused:?}");

    let mut leaf = Leaf::of(&web(), world.now);
    leaf.not_after = world.now + Duration::from_secs(600);
    let both = vec![other.authority.der(), world.authority.der()];
    let trusting = identity(&other.authority.certificate_with(&web(), &leaf, both, world.now));
    let refused = handshake(trusting.client, world.identity(&cart()).server).unwrap_err();
    assert!(matches!(refused, Refused::ByServer(_)), "{refused:?}");
}

#[test]
fn two_roots_hold_at_once_while_one_replaces_the_other() {
    let (old, new, now) = (Authority::root("root"), Authority::root("root"), SystemTime::now());
    let under = |authority: &Authority, id: &SpiffeId| {
        let both = vec![old.der(), new.der()];
        identity(&authority.certificate_with(id, &Leaf::of(id, now), both, now))
    };
    for (client, server) in [(&old, &new), (&new, &old), (&new, &new)] {
        handshake(under(client, &web()).client, under(server, &cart()).server).unwrap();
    }
}

#[test]
fn a_certificate_is_used_only_for_what_it_was_issued() {
    let world = World::new();
    let server_only = |leaf: &mut Leaf| leaf.usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let client = world.identity_with(&web(), server_only, world.now).client;
    let refused = handshake(client, world.identity(&cart()).server).unwrap_err();
    assert!(matches!(refused, Refused::ByServer(_)), "{refused:?}");
}

#[test]
fn a_server_that_names_two_workloads_is_refused() {
    let world = World::new();
    let mut leaf = Leaf::of(&cart(), world.now);
    leaf.uris.push(web().to_string());
    let (certificate, key) = world.authority.sign(&leaf);
    let server = ServerConfig::builder_with_provider(provider().clone())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    match handshake(world.identity(&web()).client, Arc::new(server)).unwrap_err() {
        Refused::ByClient(error) => {
            let two = PeerRefused::Leaf(NotASpiffeLeaf::SeveralUris { count: 2 });
            assert_eq!(peer_refusal(&error), Some(two));
        }
        Refused::ByServer(error) => panic!("{error}"),
    }
}

/// A ClientHello of TLS 1.2, as far as a server reads it before it answers: no
/// `supported_versions`, one ECDHE suite, the extensions that TLS 1.2 with ECDSA needs.
fn client_hello_of_tls_12() -> Vec<u8> {
    let extensions = [
        &[0, 10, 0, 4, 0, 2, 0, 23][..],     // supported_groups: secp256r1
        &[0, 11, 0, 2, 1, 0],                // ec_point_formats: uncompressed
        &[0, 13, 0, 4, 0, 2, 4, 3],          // signature_algorithms: ecdsa_secp256r1_sha256
        &[0, 16, 0, 5, 0, 3, 2, b'h', b'2'], // ALPN: h2
    ]
    .concat();
    let length = u8::try_from(extensions.len()).unwrap();
    let hello = [
        &[3, 3][..],         // legacy_version: TLS 1.2
        &[7; 32],            // random
        &[0],                // no session
        &[0, 2, 0xC0, 0x2B], // TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        &[1, 0],             // no compression
        &[0, length],
        &extensions,
    ]
    .concat();
    let message = [&[1, 0, 0, u8::try_from(hello.len()).unwrap()][..], &hello].concat();
    [&[22, 3, 1, 0, u8::try_from(message.len()).unwrap()][..], &message].concat()
}

#[test]
fn tls_12_is_refused() {
    let world = World::new();
    let mut server = ServerConnection::new(world.identity(&cart()).server).unwrap();
    feed(&mut client_hello_of_tls_12().as_slice(), |bytes| server.read_tls(bytes));
    let refused = server.process_new_packets().unwrap_err();
    let only_tls_13 = PeerIncompatible::SupportedVersionsExtensionRequired;
    assert_eq!(refused, rustls::Error::PeerIncompatible(only_tls_13));
}

#[test]
fn debug_shows_no_configuration() {
    let shown = format!("{:?}", World::new().identity(&cart()));
    assert!(shown.contains("spiffe://cluster.local/ns/shop/sa/cart") && !shown.contains("Config"), "{shown}");
}
