//! What is no HTTP passes a waypoint as octets.

#![expect(clippy::unwrap_used, reason = "what fails in a test's own set-up fails the test")]

#[expect(dead_code, reason = "other tests use more of it")]
mod support;

use std::time::Duration;

use ambit_mesh::service::AppProtocol;
use ambit_mesh::workload::TunnelProtocol;
use support::{Mesh, Setup, deny_account, read_until, run, write};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::spawn_local;

/// An application that speaks first, and then sends back.
fn greet(listener: TcpListener) {
    spawn_local(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            spawn_local(async move {
                write(&mut stream, "220 ready\r\n").await;
                let (mut reading, mut writing) = stream.split();
                let _ = tokio::io::copy(&mut reading, &mut writing).await;
                let _ = writing.shutdown().await;
            });
        }
    });
}

#[test]
fn a_server_may_speak_first_whether_or_not_the_protocol_is_declared() {
    run(async {
        for (protocol, tunnel) in [
            (AppProtocol::Unknown, TunnelProtocol::None),
            (AppProtocol::Tcp, TunnelProtocol::Hbone),
            (AppProtocol::Tls, TunnelProtocol::None),
        ] {
            let mesh = Mesh::start(Setup { protocol, tunnel, ..Setup::default() });
            let _said = mesh.node_agent().await;
            greet(mesh.backend().await);
            let mut client = mesh.connect().await;
            assert_eq!(read_until(&mut client, "\r\n").await, "220 ready\r\n");
            write(&mut client, "EHLO mail\r\n").await;
            assert_eq!(read_until(&mut client, "\r\n").await, "EHLO mail\r\n");
            client.shutdown().await.unwrap();
            assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        }
    });
}

#[test]
fn policy_decides_and_goes_on_deciding() {
    run(async {
        let mut mesh = Mesh::start(Setup { protocol: AppProtocol::Tcp, ..Setup::default() });
        greet(mesh.backend().await);
        let mut open = mesh.connect().await;
        read_until(&mut open, "\r\n").await;
        mesh.apply([deny_account("client")]);
        let cut = tokio::time::timeout(Duration::from_secs(1), open.read(&mut [0])).await;
        cut.expect("within a second").expect_err("never as an end");
        let mut refused = mesh.connect().await;
        refused.read(&mut [0]).await.expect_err("refused");
    });
}
