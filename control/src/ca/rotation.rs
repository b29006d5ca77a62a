//! The procedure by which a root replaces another: who believes whom in its phases.

use std::sync::Arc;
use std::time::SystemTime;

use ambit_identity::certificate::WorkloadCertificate;
use ambit_identity::csr::CertificateRequest;
use ambit_identity::tls::{TlsIdentity, TrustPolicy};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, ServerConnection};

use super::grant::{Caller, NodeIdentities, authorize};
use super::key_proof::ProvenKey;
use super::lifetime::Lifetimes;
use super::testing::{Ca, cart, load, web};
use ambit_mesh::identity::SpiffeId;

/// A workload that was given its certificate in one phase, with the roots of that phase.
fn workload(id: &SpiffeId, issuing: &Ca, roots: &[&Ca]) -> TlsIdentity {
    let (directory, now) = (tempfile::tempdir().unwrap(), SystemTime::now());
    issuing.plug_in(directory.path(), &[], roots);
    let authority = load(directory.path(), now).unwrap();
    let facts = NodeIdentities { by_node: [("node-1".into(), [id.clone()].into())].into() };
    let grant = authorize(&Caller::authenticated("node-1".into()), id, &facts).unwrap();
    let request = CertificateRequest::new(id).unwrap();
    let key = ProvenKey::from_csr(&request.pem, id).unwrap();
    let issued = authority.issue(grant, &key, 0, &Lifetimes::default(), now, &mut rand::rng()).unwrap();
    let certificate = WorkloadCertificate::from_issued(id, request.key, &issued.chain, now).unwrap();
    TlsIdentity::new(&certificate, 1, &TrustPolicy::default()).unwrap()
}

fn believe_each_other(client: &TlsIdentity, server: &TlsIdentity) -> bool {
    let anybody = ServerName::try_from("10.0.0.1").unwrap();
    let mut client = ClientConnection::new(Arc::clone(&client.client), anybody).unwrap();
    let mut server = ServerConnection::new(Arc::clone(&server.server)).unwrap();
    let mut wire = Vec::new();
    while client.is_handshaking() || server.is_handshaking() || client.wants_write() {
        wire.clear();
        client.write_tls(&mut wire).unwrap();
        let mut unread = wire.as_slice();
        while !unread.is_empty() {
            server.read_tls(&mut unread).unwrap();
        }
        if server.process_new_packets().is_err() {
            return false;
        }
        wire.clear();
        server.write_tls(&mut wire).unwrap();
        let mut unread = wire.as_slice();
        while !unread.is_empty() {
            client.read_tls(&mut unread).unwrap();
        }
        if client.process_new_packets().is_err() {
            return false;
        }
    }
    true
}

/// In the rows stand clients, in the columns servers, each with a certificate of one phase:
/// before, 1. both trusted, 2. issued by the new root, 3. the new root alone.
#[test]
fn neighbouring_phases_of_a_rotation_believe_each_other_and_others_need_not() {
    let (old_root, new_root) = (Ca::root("old"), Ca::root("new"));
    let (old, new) = (old_root.below("old issuing"), new_root.below("new issuing"));
    let phases: [(&Ca, &[&Ca]); 4] = [
        (&old, &[&old_root]),
        (&old, &[&old_root, &new_root]),
        (&new, &[&old_root, &new_root]),
        (&new, &[&new_root]),
    ];
    let believed = phases.map(|(issuing, roots)| {
        let client = workload(&cart(), issuing, roots);
        phases.map(|(issuing, roots)| believe_each_other(&client, &workload(&web(), issuing, roots)))
    });
    // A phase may not begin before all certificates are of the one before it.
    let expected = [
        [true, true, false, false],
        [true, true, true, false],
        [false, true, true, true],
        [false, false, true, true],
    ];
    assert_eq!(believed, expected);
}
