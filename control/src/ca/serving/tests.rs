use std::fs;
use std::path::Path;

use ambit_identity::roots;
use rustls::{ClientConfig, ClientConnection, ServerConnection};

use super::*;
use crate::ca::testing::{Ca, load, own};

fn handshake(client: Arc<ClientConfig>, server: &Arc<ServerConfig>, name: &str) -> Result<(), rustls::Error> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(client, name).unwrap();
    let mut server = ServerConnection::new(server.clone()).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        let mut unread = wire.as_slice();
        while !unread.is_empty() {
            server.read_tls(&mut unread).unwrap();
        }
        server.process_new_packets()?;
        wire.clear();
        server.write_tls(&mut wire).unwrap();
        let mut unread = wire.as_slice();
        while !unread.is_empty() {
            client.read_tls(&mut unread).unwrap();
        }
        client.process_new_packets()?;
    }
    Ok(())
}

async fn trusting(directory: &Path, roots: &str) -> Arc<ClientConfig> {
    let file = directory.join("trusted.pem");
    fs::write(&file, roots).unwrap();
    roots::client_config(&file).await.unwrap()
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn the_listener_is_who_its_names_say() {
    let directory = tempfile::tempdir().unwrap();
    let authority = own(directory.path(), SystemTime::now()).unwrap();
    let roots = authority.roots_pem();
    let (_publish, authority) = watch::channel(Arc::new(authority));
    let asked = names(&["control.ambit-system.svc", "127.0.0.1", "::1"]);
    let serving = ServingCertificate::start(authority, &asked, WallClock::default()).unwrap();
    let config = serving.server_config();
    let client = trusting(directory.path(), &roots).await;
    for name in &asked {
        handshake(client.clone(), &config, name).unwrap();
    }
    for name in ["elsewhere.example", "127.0.0.2"] {
        assert!(handshake(client.clone(), &config, name).is_err(), "{name}");
    }
    let stranger = trusting(directory.path(), &Ca::root("Ambit mesh root").pem()).await;
    assert!(handshake(stranger, &config, "127.0.0.1").is_err());
}

#[tokio::test(start_paused = true)]
async fn the_certificate_is_renewed_with_time_and_with_its_authority() {
    let directory = tempfile::tempdir().unwrap();
    let (began, started) = (SystemTime::now(), tokio::time::Instant::now());
    let clock = WallClock::new(move || began + started.elapsed());
    let (replace, authority) = watch::channel(Arc::new(own(directory.path(), began).unwrap()));
    let names = alternative_names(&names(&["localhost"])).unwrap();
    let mut renewal = Renewal { authority, names, clock: clock.clone(), schedule: Schedule::default() };
    let (first, next) = renewal.issue().unwrap();
    let (publish, mut current) = watch::channel(first.clone());
    let task = tokio::spawn(renewal.run(next, publish));

    current.changed().await.unwrap();
    let hours = started.elapsed().as_secs() / 3600;
    assert!((10..14).contains(&hours), "renewed after {hours} hours of 24");
    assert_ne!(current.borrow().cert, first.cert);

    let plugged = tempfile::tempdir().unwrap();
    let root = Ca::root("new root");
    let issuing = root.below("issuing");
    issuing.plug_in(plugged.path(), &[], &[&root]);
    let before = clock.now();
    replace.send_replace(Arc::new(load(plugged.path(), before).unwrap()));
    current.changed().await.unwrap();
    assert_eq!(current.borrow().cert[1], issuing.certificate);
    assert!(clock.now().duration_since(before).unwrap().as_secs() < 60, "at once, not at its time");

    drop(replace);
    current.changed().await.unwrap();
    assert!(clock.now().duration_since(before).unwrap().as_secs() > 3600, "time goes on alone");
    task.abort();
}

#[tokio::test]
async fn names_that_cannot_be_served_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (_publish, authority) = watch::channel(Arc::new(own(directory.path(), SystemTime::now()).unwrap()));
    let start =
        |asked: &[&str]| ServingCertificate::start(authority.clone(), &names(asked), WallClock::default());
    assert!(matches!(start(&[]), Err(ServingError::NoName)));
    for bad in ["", "two words", "https://control", "-"] {
        assert!(matches!(start(&["localhost", bad]), Err(ServingError::Name { .. })), "{bad:?}");
    }
}
