use std::net::Ipv6Addr;

use ambit_identity::clock::WallClock;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;
use tokio_stream::StreamExt;
use tonic::transport::server::Connected;

use super::*;
use crate::ca::current::{CurrentAuthority, Origin};
use crate::ca::serving::ServingCertificate;

#[tokio::test]
async fn a_silent_client_holds_up_nobody() {
    let state = tempfile::tempdir().unwrap();
    let authority = CurrentAuthority::open(&Origin::OwnRoot, state.path()).unwrap();
    let names = ["control.test".to_owned()];
    let certificate = ServingCertificate::start(authority.subscribe(), &names, WallClock::default()).unwrap();
    let listener = bind((Ipv6Addr::UNSPECIFIED, 0).into()).unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut connections = accept(listener, certificate.server_config());

    let silent = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(state.path().join("root-cert.pem")).unwrap()).unwrap();
    let provider = ambit_identity::tls::provider().clone();
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    let name = ServerName::try_from("control.test").unwrap();
    let client = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let (client, accepted) = tokio::join!(client, connections.next());
    let local = client.unwrap().get_ref().0.local_addr().unwrap().port();
    let accepted = accepted.unwrap().unwrap().connect_info();
    assert_eq!(accepted.get_ref().remote_addr().unwrap().port(), local);
    drop(silent);
}
