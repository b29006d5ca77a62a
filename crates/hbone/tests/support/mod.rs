//! Two ends of a tunnel on loopback, with certificates made on the spot.

use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ambit_hbone::buffer::BufferPool;
use ambit_hbone::codec::{Codec, Settings};
use ambit_hbone::socket::Socket;
use ambit_hbone::tls::TlsSession;
use ambit_hbone::tunnel::{Keepalive, Tunnel, handshake};
use ambit_identity::certificate::WorkloadCertificate;
use ambit_identity::tls::{TlsIdentity, TrustPolicy};
use ambit_mesh::identity::SpiffeId;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// A root that issues to anybody.
pub(crate) struct Root {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Root {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "test root");
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A workload of this root.
    pub(crate) fn workload(&self, service_account: &str) -> TlsIdentity {
        let id: SpiffeId = format!("spiffe://cluster.local/ns/test/sa/{service_account}").parse().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(id.to_string().try_into().unwrap())];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let now = SystemTime::now();
        params.not_before = (now - Duration::from_secs(60)).into();
        params.not_after = (now + Duration::from_secs(3600)).into();
        let leaf = params.signed_by(&key, &self.issuer).unwrap().pem();
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let issued = WorkloadCertificate::from_issued(&id, der, &[leaf, self.pem.clone()], now).unwrap();
        TlsIdentity::new(&issued, 1, &TrustPolicy::default()).unwrap()
    }
}

/// A connected pair of sockets on loopback: who connected, who accepted.
pub(crate) fn tcp_pair() -> (Socket, Socket) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connected = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    (Socket::new(connected).unwrap(), Socket::new(accepted).unwrap())
}

/// An application's end, driven by tokio, and the proxy's end of the same connection.
pub(crate) fn application() -> (tokio::net::TcpStream, Rc<Socket>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connected = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    connected.set_nonblocking(true).unwrap();
    (tokio::net::TcpStream::from_std(connected).unwrap(), Rc::new(Socket::new(accepted).unwrap()))
}

/// Both ends of a tunnel, their drivers running on the current `LocalSet`.
pub(crate) async fn tunnel_pair(settings: (Settings, Settings)) -> (Tunnel, Tunnel) {
    let root = Root::new();
    let (client_id, server_id) = (root.workload("client"), root.workload("server"));
    let (connected, accepted) = tcp_pair();
    let buffers = BufferPool::new();
    let client = TlsSession::client(Arc::clone(&client_id.client)).unwrap();
    let server = TlsSession::server(Arc::clone(&server_id.server)).unwrap();
    // Each end by itself: the client's driver sends what the server's handshake ends with.
    let end = async |socket, session, codec| {
        let secured = handshake(socket, session, &buffers).await.unwrap();
        let (tunnel, driver) = Tunnel::new(secured, codec, buffers.clone(), Keepalive::default());
        tokio::task::spawn_local(driver);
        tunnel
    };
    tokio::join!(
        end(connected, client, Codec::client(settings.0)),
        end(accepted, server, Codec::server(settings.1))
    )
}
