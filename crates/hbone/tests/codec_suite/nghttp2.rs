//! nghttp2's programs as peers. They speak no CONNECT, but everything around it.
//!
//! They come with Debian's packages nghttp2-client and nghttp2-server; without them these tests fail.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};

use ambit_hbone::codec::{Codec, Event, Reason, Settings};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_blocking;

use crate::shell::{Answer, Plan, Shell, When};

const MISSING: &str = "cannot run it: install the packages nghttp2-client and nghttp2-server";

/// Runs one of the programs against a server of ours that answers 400 to whatever is no CONNECT.
async fn against_our_server(program: &str, arguments: &[&str]) -> (Output, Codec) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let child = Command::new(program)
        .args(arguments)
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}: {MISSING}"));
    let (stream, _) = listener.accept().await.unwrap();
    let mut server = Shell::server(Codec::server(Settings::SERVER), stream, |head| {
        assert!(!head.is_connect());
        Answer::Refuse(400)
    });
    // The program ends by itself when its requests are answered or the connection is lost.
    let output = spawn_blocking(move || child.wait_with_output());
    server.run_until(|_| false).await;
    (output.await.unwrap().unwrap(), server.codec)
}

#[tokio::test]
async fn nghttp_gets_400_for_a_get() {
    let (output, codec) = against_our_server("nghttp", &["-v", "--no-dep"]).await;
    let log = String::from_utf8_lossy(&output.stdout);
    assert!(log.contains(":status: 400"), "{log}");
    assert!(!log.contains("ERROR ") && !log.contains("Some requests were not processed"), "{log}");
    assert_eq!(codec.stats().streams_opened, 1);
}

#[tokio::test]
async fn h2load_gets_400_a_thousand_times() {
    let (output, codec) = against_our_server("h2load", &["-n1000", "-c1", "-m100"]).await;
    let log = String::from_utf8_lossy(&output.stdout);
    assert!(log.contains("1000 done") && log.contains("0 2xx, 0 3xx, 1000 4xx, 0 5xx"), "{log}");
    assert!(log.contains("0 errored, 0 timeout"), "{log}");
    assert_eq!((codec.stats().streams_opened, codec.stats().streams_refused), (1000, 0));
}

/// nghttpd, until it is dropped.
struct Nghttpd(Child);

impl Nghttpd {
    /// It prints no port for 0, so the kernel is asked for a free one.
    async fn start() -> (Self, TcpStream) {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let mut child = Command::new("nghttpd")
            .args(["--no-tls", "--verbose", "--address=127.0.0.1", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("nghttpd: {error}: {MISSING}"));
        // Its first line says that it listens; the rest has to be read, or it stops.
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let nghttpd = Self(child);
        let lines = spawn_blocking(move || lines.next().expect("nghttpd ended").map(|_| lines))
            .await
            .unwrap()
            .unwrap();
        std::thread::spawn(|| lines.for_each(drop));
        (nghttpd, TcpStream::connect(("127.0.0.1", port)).await.unwrap())
    }
}

impl Drop for Nghttpd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn nghttpd_answers_our_client() {
    let (_nghttpd, stream) = Nghttpd::start().await;
    let mut client = Shell::client(Codec::client(Settings::CLIENT), stream);
    let id = client.open("127.0.0.1:80", Plan { octets: 0, end: When::AtOnce });
    client.codec.ping(*b"nghttpd?");
    let pong = Event::Pong { payload: *b"nghttpd?" };
    assert!(client.run_until(|client| client.flows[&id].heard_end && client.events.contains(&pong)).await);
    let answer = client.events.iter().find(|event| event.stream() == Some(id));
    let Some(Event::Response { status: 400.., headers, .. }) = answer else { panic!("{answer:?}") };
    assert!(headers.text("server").is_some_and(|server| server.starts_with("nghttpd")));
    client.codec.close(Reason::NoError);
    assert!(!client.run_until(|_| false).await);
}
