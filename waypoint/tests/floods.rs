//! Who floods or dawdles ends alone: others on the same tunnel do not notice.

#![expect(clippy::unwrap_used, reason = "what fails in a test's own set-up fails the test")]

#[path = "support/raw.rs"]
#[expect(dead_code, reason = "other tests use more of it")]
mod raw;
#[expect(dead_code, reason = "other tests use more of it")]
mod support;

use std::time::Duration;

use ambit_mesh::service::AppProtocol;
use raw::{
    DATA, END_HEADERS, END_STREAM, HEADERS, Heard, PING, RST_STREAM, RawHttp2, SETTINGS, block, frame, record,
};
use support::{Mesh, Setup, open, read_message, run, write};
use tokio::time::timeout;
use waypoint::wire::Wire;

const REQUEST: [(&[u8], &[u8]); 4] =
    [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"web")];

/// How long the end of a flood may take.
const PATIENCE: Duration = Duration::from_secs(20);

async fn is_served(bystander: &mut Wire) -> bool {
    write(bystander, "GET / HTTP/1.1\r\nhost: web\r\n\r\n").await;
    read_message(bystander).await.0.starts_with("HTTP/1.1 200 ")
}

#[test]
fn a_flood_ends_its_own_connection_alone() {
    run(async {
        let mesh = Mesh::start(Setup { protocol: AppProtocol::Http11, ..Setup::default() });
        let _recorded = record(mesh.backend().await);
        let tunnel = mesh.tunnel("client").await;
        let mut bystander = open(&tunnel, mesh.vip).await.unwrap();
        let open_block = block(&REQUEST);
        for (name, opens, piece) in [
            ("PING", false, Box::new(|_| frame(PING, 0, 0, &[0; 8])) as Box<dyn Fn(u32) -> Vec<u8>>),
            ("SETTINGS", false, Box::new(|_| frame(SETTINGS, 0, 0, &[]))),
            ("WINDOW_UPDATE", true, Box::new(|_| frame(8, 0, 1, &1_u32.to_be_bytes()))),
            ("PRIORITY", false, Box::new(|_| frame(2, 0, 3, &[0, 0, 0, 1, 1]))),
            ("an unknown type", false, Box::new(|_| frame(99, 0, 0, &[]))),
            ("empty DATA", true, Box::new(|_| frame(DATA, 0, 1, &[]))),
            (
                "rapid reset",
                false,
                Box::new(|round| {
                    let stream = 2 * round + 1;
                    let asked = frame(HEADERS, END_STREAM | END_HEADERS, stream, &block(&REQUEST));
                    [asked, frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
                }),
            ),
            (
                "CONTINUATION",
                false,
                Box::new(|round| if round == 0 { frame(HEADERS, 0, 1, &[]) } else { frame(9, 0, 1, &[]) }),
            ),
        ] {
            let mut offender = RawHttp2::begin(open(&tunnel, mesh.vip).await.unwrap()).await;
            if opens {
                offender.send(&frame(HEADERS, END_HEADERS, 1, &open_block)).await;
            }
            let mut rounds = 0;
            // Who does not read what it provokes stops being read.
            while rounds < 40_000 {
                let pieces: Vec<u8> = (rounds..rounds + 100).flat_map(&piece).collect();
                let sent = timeout(Duration::from_secs(1), offender.send(&pieces)).await;
                if sent != Ok(true) {
                    break;
                }
                rounds += 100;
                if rounds % 1000 == 0 {
                    assert!(is_served(&mut bystander).await, "{name}");
                }
            }
            let ended = async { while offender.hear(u32::MAX).await != Heard::Gone {} };
            timeout(PATIENCE, ended).await.unwrap_or_else(|_| panic!("{name}: goes on after {rounds}"));
            assert!(is_served(&mut bystander).await, "{name}");
        }
    });
}

#[test]
fn a_head_of_http2_that_never_ends_ends_its_connection_alone() {
    run(async {
        let mesh = Mesh::start(Setup { protocol: AppProtocol::Http11, ..Setup::default() });
        let _recorded = record(mesh.backend().await);
        let tunnel = mesh.tunnel("client").await;
        let mut bystander = open(&tunnel, mesh.vip).await.unwrap();
        let whole = frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(&REQUEST));
        for (name, begun) in [
            ("in a frame's head", &whole[..5]),
            ("in a block", &whole[..20]),
            ("before its continuation", &frame(HEADERS, 0, 1, &block(&REQUEST))),
        ] {
            let mut slow = RawHttp2::begin(open(&tunnel, mesh.vip).await.unwrap()).await;
            slow.send(begun).await;
            let ended = async { while slow.hear(u32::MAX).await != Heard::Gone {} };
            timeout(PATIENCE, ended).await.unwrap_or_else(|_| panic!("{name}: goes on"));
            assert!(is_served(&mut bystander).await, "{name}");
        }
        // Who has nothing to say is not slow, and neither is a body.
        let mut patient = RawHttp2::begin(open(&tunnel, mesh.vip).await.unwrap()).await;
        patient.send(&frame(HEADERS, END_HEADERS, 1, &block(&REQUEST))).await;
        patient.send(&frame(DATA, 0, 1, b"four")[..11]).await;
        timeout(Duration::from_secs(5), patient.hear(1)).await.expect_err("it is waited for");
        patient.send(&frame(DATA, 0, 1, b"four")[11..]).await;
        patient.send(&frame(DATA, END_STREAM, 1, b"")).await;
        assert_eq!(patient.hear(1).await, Heard::Status(200));
    });
}
