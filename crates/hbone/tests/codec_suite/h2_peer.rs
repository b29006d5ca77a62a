//! The `h2` crate as the peer, in both roles.

use ambit_hbone::codec::{Codec, Event, Reason, RequestHead, Settings};
use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::{Method, Request, Response, StatusCode};
use tokio::io::{DuplexStream, duplex};
use tokio::task::{JoinHandle, JoinSet};

use crate::shell::{Answer, Plan, Shell, When, pattern};

const MIB: usize = 1024 * 1024;

/// Small enough that neither side can write everything before the other reads.
const PIPE: usize = 64 * 1024;

/// The settings of the peer that make a difference for us.
#[derive(Clone, Copy, Debug)]
struct Limits {
    frame: u32,
    stream_window: u32,
    connection_window: u32,
}

const ISTIO: Limits = Limits { frame: 1 << 20, stream_window: 4 << 20, connection_window: 16 << 20 };
const ENVOY: Limits = Limits { frame: 1 << 14, stream_window: 1 << 16, connection_window: 1 << 17 };
const TINY: Limits = Limits { frame: 1 << 14, stream_window: 10_000, connection_window: 65_535 };

async fn send_pattern(stream: &mut SendStream<Bytes>, octets: usize) -> Result<(), h2::Error> {
    let mut sent = 0;
    while sent < octets {
        stream.reserve_capacity(octets - sent);
        let capacity = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await.expect("stream closed")?;
        let piece = pattern(sent, capacity.min(octets - sent).min(MIB));
        sent += piece.len();
        stream.send_data(Bytes::from_static(piece), false)?;
    }
    Ok(())
}

/// Reads the pattern to its end.
async fn receive_pattern(stream: &mut RecvStream) -> Result<usize, h2::Error> {
    let mut received = 0;
    while let Some(data) = stream.data().await {
        let data = data?;
        assert!(data == pattern(received, data.len()), "payload differs");
        received += data.len();
        stream.flow_control().release_capacity(data.len())?;
    }
    Ok(received)
}

/// A server that does what the authority says: `<octets to send>:<who ends first, or how it ends>`.
fn spawn_server(io: DuplexStream, limits: Limits, max_streams: u32) -> JoinHandle<Result<(), h2::Error>> {
    tokio::spawn(async move {
        let mut connection = h2::server::Builder::new()
            .max_frame_size(limits.frame)
            .initial_window_size(limits.stream_window)
            .initial_connection_window_size(limits.connection_window)
            .max_concurrent_streams(max_streams)
            .handshake(io)
            .await?;
        let mut answers = JoinSet::new();
        while let Some(request) = connection.accept().await {
            let (request, respond) = request?;
            assert_eq!(request.method(), Method::CONNECT);
            assert_eq!(request.headers()["baggage"], "k8s.namespace.name=shop");
            if request.uri().port_u16() == Some(LEAVE) {
                connection.graceful_shutdown();
            }
            answers.spawn(answer(request, respond));
        }
        while let Some(answer) = answers.join_next().await {
            answer.expect("an answer failed");
        }
        Ok(())
    })
}

/// Ports of authorities that tell the server of these tests what to do.
const SERVER_ENDS_FIRST: u16 = 1;
const CLIENT_ENDS_FIRST: u16 = 2;
const RESET: u16 = 3;
const REFUSE: u16 = 4;
const LEAVE: u16 = 5;

async fn answer(request: Request<RecvStream>, mut respond: h2::server::SendResponse<Bytes>) {
    let octets: usize = request.uri().host().unwrap().parse().unwrap();
    let port = request.uri().port_u16().unwrap();
    if port == REFUSE {
        let response = Response::builder().status(503).header("retry-after", "1").body(()).unwrap();
        respond.send_response(response, true).unwrap();
        return;
    }
    let mut sender = respond.send_response(Response::new(()), false).unwrap();
    let mut receiver = request.into_body();
    match port {
        SERVER_ENDS_FIRST => {
            send_pattern(&mut sender, octets).await.unwrap();
            sender.send_data(Bytes::new(), true).unwrap();
            receive_pattern(&mut receiver).await.unwrap();
        }
        RESET => {
            send_pattern(&mut sender, octets).await.unwrap();
            sender.send_reset(h2::Reason::CONNECT_ERROR);
        }
        // Both directions at once, and the end when the client said its own.
        CLIENT_ENDS_FIRST | LEAVE => {
            let sending = async {
                send_pattern(&mut sender, octets).await.unwrap();
                sender
            };
            let (mut sender, _) = tokio::join!(sending, receive_pattern(&mut receiver));
            sender.send_data(Bytes::new(), true).unwrap();
        }
        port => panic!("port {port} is no order"),
    }
}

fn a_client(limits: Limits, max_streams: u32) -> (Shell<DuplexStream>, JoinHandle<Result<(), h2::Error>>) {
    let (near, far) = duplex(PIPE);
    let server = spawn_server(far, limits, max_streams);
    (Shell::client(Codec::client(Settings::CLIENT), near), server)
}

#[tokio::test]
async fn eight_mebibytes_each_way_to_an_h2_server_with_either_side_ending_first() {
    for limits in [ISTIO, ENVOY, TINY] {
        for (port, end) in [(SERVER_ENDS_FIRST, When::AfterThePeers), (CLIENT_ENDS_FIRST, When::AtOnce)] {
            let (mut client, server) = a_client(limits, 100);
            let id = client.open(&format!("{}:{port}", 8 * MIB), Plan { octets: 8 * MIB, end });
            assert!(client.run_until(|client| client.flows[&id].is_over()).await, "{limits:?} {end:?}");
            let flow = &client.flows[&id];
            assert_eq!((flow.sent, flow.received), (8 * MIB, 8 * MIB), "{limits:?} {end:?}");
            assert_eq!(client.codec.open_streams(), 0);
            drop(client);
            let _ = server.await.unwrap();
        }
    }
}

#[tokio::test]
async fn many_streams_share_one_tunnel_to_an_h2_server() {
    let (mut client, _server) = a_client(TINY, 10);
    client.run_until(|client| client.codec.stats().frames_received > 1).await;
    assert_eq!(client.codec.streams_available(), 10);
    for round in 0..300 {
        if client.codec.streams_available() == 0 {
            client.run_until(|client| client.codec.streams_available() > 0).await;
        }
        client.open(
            &format!("{}:{CLIENT_ENDS_FIRST}", round * 100),
            Plan { octets: 20_000, end: When::AtOnce },
        );
    }
    assert!(client.run_until(|client| client.flows.values().all(|flow| flow.is_over())).await);
    for (round, flow) in client.flows.values().enumerate() {
        assert_eq!((flow.sent, flow.received), (20_000, round * 100));
    }
    assert_eq!(client.codec.stats().resets_received, 0);
}

#[tokio::test]
async fn a_reset_of_an_h2_server_is_a_reset() {
    let (mut client, _server) = a_client(ISTIO, 100);
    let id = client.open(&format!("1000:{RESET}"), Plan { octets: 0, end: When::Never });
    let reset = Event::Reset { stream: id, reason: Reason::ConnectError };
    assert!(client.run_until(|client| client.events.contains(&reset)).await);
    assert!(!client.flows[&id].heard_end);
}

#[tokio::test]
async fn a_refusal_of_an_h2_server_is_an_answer() {
    let (mut client, _server) = a_client(ISTIO, 100);
    let id = client.open(&format!("0:{REFUSE}"), Plan { octets: 1000, end: When::AtOnce });
    assert!(client.run_until(|client| client.flows[&id].heard_end).await);
    let answer = client.events.iter().find(|event| event.stream() == Some(id));
    let Some(Event::Response { status: 503, headers, .. }) = answer else { panic!("{answer:?}") };
    assert_eq!(headers.text("retry-after"), Some("1"));
    assert_eq!(client.flows[&id].sent, 0);
}

#[tokio::test]
async fn an_h2_server_that_leaves_lets_streams_finish() {
    let (mut client, server) = a_client(ISTIO, 100);
    let id = client.open(&format!("{MIB}:{LEAVE}"), Plan { octets: MIB, end: When::AtOnce });
    assert!(client.run_until(|client| client.flows[&id].is_over()).await);
    assert!(client.events.iter().any(|event| matches!(event, Event::GoAway { reason: Reason::NoError, .. })));
    assert_eq!(client.codec.streams_available(), 0);
    assert_eq!(client.flows[&id].received, MIB);
    client.run_until(|_| false).await;
    server.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_h2_server_answers_pings() {
    let (mut client, _server) = a_client(ISTIO, 100);
    client.codec.ping(*b"are you?");
    let pong = Event::Pong { payload: *b"are you?" };
    assert!(client.run_until(|client| client.events.contains(&pong)).await);
}

/// What our server does, in the words of the authorities above.
fn ours(head: &RequestHead) -> Answer {
    assert!(head.is_connect());
    let (octets, port) = head.authority().split_once(':').unwrap();
    let end = match port.parse() {
        Ok(SERVER_ENDS_FIRST) => When::AtOnce,
        Ok(CLIENT_ENDS_FIRST) => When::AfterThePeers,
        Ok(RESET) => When::Never,
        Ok(REFUSE) => return Answer::Refuse(401),
        port => panic!("port {port:?} is no order"),
    };
    Answer::Tunnel(Plan { octets: octets.parse().unwrap(), end })
}

/// Our server, and a client of `h2` that talks to it.
async fn a_server(
    limits: Limits,
    local: Settings,
) -> (Shell<DuplexStream>, h2::client::SendRequest<Bytes>, JoinHandle<Result<(), h2::Error>>) {
    let (near, far) = duplex(PIPE);
    let server = Shell::server(Codec::server(local), near, ours);
    let client = h2::client::Builder::new()
        .max_frame_size(limits.frame)
        .initial_window_size(limits.stream_window)
        .initial_connection_window_size(limits.connection_window)
        .handshake(far);
    let (requests, connection) = client.await.unwrap();
    (server, requests, tokio::spawn(connection))
}

fn connect(octets: usize, port: u16) -> Request<()> {
    Request::builder()
        .method(Method::CONNECT)
        .uri(format!("{octets}:{port}"))
        .header("baggage", "k8s.namespace.name=shop")
        .body(())
        .unwrap()
}

/// A flow as `h2` has it: the status, and how much came until the end.
async fn converse(
    requests: &h2::client::SendRequest<Bytes>,
    request: Request<()>,
    octets: usize,
) -> Result<(StatusCode, usize), h2::Error> {
    let (response, mut sender) = requests.clone().ready().await?.send_request(request, false)?;
    let response = response.await?;
    let status = response.status();
    let sending = async {
        if status == StatusCode::OK {
            send_pattern(&mut sender, octets).await?;
            sender.send_data(Bytes::new(), true)?;
        }
        Ok::<_, h2::Error>(())
    };
    let mut receiver = response.into_body();
    let (sent, received) = tokio::join!(sending, receive_pattern(&mut receiver));
    sent?;
    Ok((status, received?))
}

#[tokio::test]
async fn eight_mebibytes_each_way_from_an_h2_client_with_either_side_ending_first() {
    for limits in [ISTIO, ENVOY, TINY] {
        for port in [SERVER_ENDS_FIRST, CLIENT_ENDS_FIRST] {
            let (mut server, requests, _connection) = a_server(limits, Settings::SERVER).await;
            let talk =
                tokio::spawn(async move { converse(&requests, connect(8 * MIB, port), 8 * MIB).await });
            let over = |server: &Shell<_>| server.flows.values().any(|flow| flow.is_over());
            assert!(server.run_until(over).await, "{limits:?} {port}");
            assert!(server.flows.values().all(|flow| (flow.sent, flow.received) == (8 * MIB, 8 * MIB)));
            assert_eq!(talk.await.unwrap().unwrap(), (StatusCode::OK, 8 * MIB));
        }
    }
}

#[tokio::test]
async fn many_streams_of_an_h2_client_share_one_tunnel() {
    let local = Settings { max_concurrent_streams: 20, stream_window: 5_000, ..Settings::SERVER };
    let (mut server, requests, _connection) = a_server(TINY, local).await;
    let mut talks = JoinSet::new();
    for round in 0..300 {
        let requests = requests.clone();
        talks.spawn(async move {
            let talk = converse(&requests, connect(round * 100, CLIENT_ENDS_FIRST), 20_000).await;
            assert_eq!(talk.unwrap(), (StatusCode::OK, round * 100));
        });
    }
    let over =
        |server: &Shell<_>| server.flows.len() == 300 && server.flows.values().all(|flow| flow.is_over());
    assert!(server.run_until(over).await);
    while let Some(talk) = talks.join_next().await {
        talk.unwrap();
    }
    assert_eq!(server.codec.stats().streams_refused, 0);
}

#[tokio::test]
async fn a_refusal_reaches_an_h2_client_as_an_answer() {
    let (mut server, requests, _connection) = a_server(ISTIO, Settings::SERVER).await;
    let talk = tokio::spawn(async move { converse(&requests, connect(0, REFUSE), 0).await });
    let is_request = |event: &Event<'_>| matches!(event, Event::Request { .. });
    server.run_until(|server| server.events.iter().any(is_request)).await;
    assert_eq!(talk.await.unwrap().unwrap(), (StatusCode::UNAUTHORIZED, 0));
}

#[tokio::test]
async fn a_reset_of_ours_is_a_reset_for_an_h2_client_and_the_other_way_round() {
    let (mut server, requests, _connection) = a_server(ISTIO, Settings::SERVER).await;
    let (response, sender) =
        requests.clone().ready().await.unwrap().send_request(connect(10, RESET), false).unwrap();
    server.run_until(|server| server.flows.values().any(|flow| flow.sent == 10)).await;
    let id = *server.flows.keys().next().unwrap();
    server.codec.reset(id, Reason::ConnectError);
    server.run_until(|_| true).await;
    let error = receive_pattern(&mut response.await.unwrap().into_body()).await.unwrap_err();
    assert_eq!(error.reason(), Some(h2::Reason::CONNECT_ERROR));
    drop(sender);

    let (_response, mut sender) =
        requests.clone().ready().await.unwrap().send_request(connect(0, RESET), false).unwrap();
    server.run_until(|server| server.flows.len() == 2).await;
    sender.send_reset(h2::Reason::NO_ERROR);
    let is_reset = |event: &Event<'_>| matches!(event, Event::Reset { reason: Reason::NoError, .. });
    assert!(server.run_until(|server| server.events.iter().any(is_reset)).await);
}

#[tokio::test]
async fn an_h2_client_understands_our_goaway() {
    let (mut server, requests, connection) = a_server(ISTIO, Settings::SERVER).await;
    let talk = {
        let requests = requests.clone();
        tokio::spawn(async move { converse(&requests, connect(MIB, CLIENT_ENDS_FIRST), MIB).await })
    };
    server.run_until(|server| !server.flows.is_empty()).await;
    server.codec.shutdown();
    assert!(server.run_until(|server| server.flows.values().all(|flow| flow.is_over())).await);
    assert_eq!(talk.await.unwrap().unwrap(), (StatusCode::OK, MIB));
    let refused = requests.clone().ready().await.err();
    // The client closes its side by itself: nothing is left to do.
    server.run_until(|_| false).await;
    connection.await.unwrap().unwrap();
    assert!(refused.is_none_or(|error| error.is_go_away() || error.is_io()));
    let refused = requests.ready().await.err().unwrap();
    assert!(refused.is_go_away() || !refused.is_remote(), "{refused}");
}
