//! Connections to endpoints: used again, shared where nobody asks for whom they are, and never otherwise; and what
//! one request leaves for the next: nothing.

#![expect(clippy::unwrap_used, reason = "what fails in a test's own set-up fails the test")]

#[path = "support/http2.rs"]
#[expect(dead_code, reason = "other tests use more of it")]
mod http2;
#[path = "support/raw.rs"]
#[expect(dead_code, reason = "other tests use more of it")]
mod raw;
#[expect(dead_code, reason = "other tests use more of it")]
mod support;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ambit_mesh::http::{
    BackendTarget, Filters, HttpChange, Order, Parent, PathMatch, Redirect, RedirectPort, Route, RouteKind,
    RouteMatch, RouteName, RouteRule, RuleAction, Timeouts, WeightedBackend,
};
use ambit_mesh::policy::{
    Action, AuthorizationPolicy, Clause, Match, PolicyName, PolicyScope, Rule, StringMatch,
};
use ambit_mesh::service::AppProtocol;
use ambit_mesh::snapshot::Change;
use ambit_mesh::workload::TunnelProtocol;
use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, Response};
use http2::{client, serve_http2};
use raw::record;
use support::{Mesh, Setup, Verdict, deny, open, read_message, run, service_name, write};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::spawn_local;
use tokio::time::timeout;
use waypoint::wire::Wire;

fn hbone(protocol: AppProtocol) -> Setup {
    Setup { protocol, tunnel: TunnelProtocol::Hbone, ..Setup::default() }
}

/// A layer-4 policy of the endpoint's namespace.
fn layer4(matches: Match) -> Change {
    Change::Policy(Arc::new(AuthorizationPolicy {
        name: PolicyName { namespace: "test".into(), name: "layer4".into() },
        scope: PolicyScope::Namespace,
        action: Action::Allow,
        rules: vec![Rule { clauses: vec![Clause { any_of: vec![matches] }] }],
        dry_run: false,
    }))
}

fn naming(account: &str) -> Change {
    let principal = StringMatch::Prefix(format!("cluster.local/ns/test/sa/{account}").into());
    layer4(Match { principals: vec![principal], ..Match::default() })
}

async fn get(client: &mut Wire) -> String {
    write(client, "GET / HTTP/1.1\r\nhost: web\r\n\r\n").await;
    let (head, _) = read_message(client).await;
    head.split(' ').nth(1).unwrap().to_owned()
}

/// An application that answers once as many requests wait as `together` says. Counts connections, open ones as well.
struct Held {
    together: Cell<usize>,
    waiting: Cell<usize>,
    go: tokio::sync::Notify,
    dials: Cell<usize>,
    open: Cell<usize>,
}

fn hold(listener: TcpListener) -> Rc<Held> {
    let held = Rc::new(Held {
        together: Cell::new(1),
        waiting: Cell::new(0),
        go: tokio::sync::Notify::new(),
        dials: Cell::new(0),
        open: Cell::new(0),
    });
    let shared = Rc::clone(&held);
    spawn_local(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let held = Rc::clone(&shared);
            held.dials.set(held.dials.get() + 1);
            held.open.set(held.open.get() + 1);
            spawn_local(async move {
                let mut room = [0; 4096];
                while let Ok(octets) = stream.read(&mut room).await
                    && octets > 0
                {
                    held.wait().await;
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
                }
                held.open.set(held.open.get() - 1);
            });
        }
    });
    held
}

impl Held {
    async fn wait(&self) {
        let going = self.go.notified();
        self.waiting.set(self.waiting.get() + 1);
        if self.waiting.get() == self.together.get() {
            self.waiting.set(0);
            self.go.notify_waiters();
        } else {
            going.await;
        }
    }
}

#[test]
fn concurrent_requests_dial_once_each_and_never_again() {
    run(async {
        let mesh = Mesh::start(hbone(AppProtocol::Http11));
        let _said = mesh.node_agent().await;
        let held = hold(mesh.backend().await);
        let tunnel = mesh.tunnel("client").await;
        held.together.set(8);
        for round in 0..5 {
            let mut clients = Vec::new();
            for _ in 0..8 {
                let mut client = open(&tunnel, mesh.vip).await.unwrap();
                write(&mut client, "GET / HTTP/1.1\r\nhost: web\r\n\r\n").await;
                clients.push(client);
            }
            for client in &mut clients {
                assert!(read_message(client).await.0.starts_with("HTTP/1.1 200 "));
            }
            assert_eq!(held.dials.get(), 8, "round {round}");
        }
        held.together.set(1);
        for _ in 0..20 {
            assert_eq!(get(&mut open(&tunnel, mesh.vip).await.unwrap()).await, "200");
        }
        assert_eq!(held.dials.get(), 8, "one after the other");
    });
}

#[test]
fn all_streams_of_all_clients_connections_take_one_connection_of_http2() {
    run(async {
        for protocol in [AppProtocol::Http2, AppProtocol::Grpc] {
            let mesh = Mesh::start(hbone(protocol));
            let _said = mesh.node_agent().await;
            let connections = serve_http2(mesh.backend().await, |_request, mut respond| async move {
                respond.send_response(Response::new(()), true).unwrap();
            });
            let ask = |mut client: SendRequest<Bytes>| async move {
                let get = Request::get("http://web/").body(()).unwrap();
                let (response, _) = client.send_request(get, true).unwrap();
                response.await.unwrap().status().as_u16()
            };
            for round in 0..3 {
                let mut asked = tokio::task::JoinSet::new();
                for account in ["client", "other", "client"] {
                    let client = client(&mesh, account).await;
                    for _ in 0..30 {
                        asked.spawn_local(ask(client.clone()));
                    }
                }
                assert_eq!(asked.join_all().await, [200; 90]);
                assert_eq!(connections.get(), 1, "round {round}");
            }
        }
    });
}

/// The library of both sides ends a connection, and all streams on it, for the empty DATA frames of its whole life.
#[test]
fn empty_data_frames_wear_connections_out_and_cost_no_stream() {
    run(async {
        let mesh = Mesh::start(hbone(AppProtocol::Grpc));
        let _said = mesh.node_agent().await;
        let connections = serve_http2(mesh.backend().await, |_request, mut respond| async move {
            let mut sending = respond.send_response(Response::new(()), false).unwrap();
            sending.send_data(Bytes::new(), false).unwrap();
            sending.send_trailers(http::HeaderMap::new()).unwrap();
        });
        let mut to_waypoint = 0;
        let mut kept: Option<SendRequest<Bytes>> = None;
        for call in 0..300 {
            let ready = match kept.take() {
                Some(kept) => kept.ready().await.ok(),
                None => None,
            };
            let mut sender = match ready {
                Some(sender) => sender,
                None => {
                    to_waypoint += 1;
                    client(&mesh, "client").await
                }
            };
            let post = Request::post("http://web/").body(()).unwrap();
            let (response, mut sending) = sender.send_request(post, false).unwrap();
            sending.send_data(Bytes::new(), false).unwrap();
            sending.send_data(Bytes::new(), true).unwrap();
            let mut body = response.await.unwrap().into_body();
            assert!(body.data().await.is_none_or(|piece| piece.is_ok()), "call {call}");
            assert!(body.trailers().await.is_ok(), "call {call}");
            kept = Some(sender);
        }
        // Each is good for some dozen.
        assert!((5..=30).contains(&to_waypoint), "{to_waypoint}");
        assert!((5..=30).contains(&connections.get()), "{}", connections.get());
    });
}

#[test]
fn clients_share_connections_until_a_policy_names_one() {
    run(async {
        let mut mesh = Mesh::start(hbone(AppProtocol::Http11));
        let said = mesh.node_agent().await;
        let held = hold(mesh.backend().await);
        let mut clients = Vec::new();
        for account in ["client", "other", "third"] {
            clients.push(open(&mesh.tunnel(account).await, mesh.vip).await.unwrap());
        }
        // Whether somebody has proved to be anybody is the same for all.
        let anybody = vec![StringMatch::Presence];
        let here = vec!["127.0.0.0/8".parse().unwrap()];
        mesh.apply([layer4(Match { principals: anybody, source_ips: here, ..Match::default() })]);
        for round in 0..9 {
            assert_eq!(get(&mut clients[round % 3]).await, "200");
        }
        assert_eq!(held.dials.get(), 1);
        assert_eq!(said.take(), [None], "it is for nobody in particular");

        mesh.apply([naming("client")]);
        for round in 0..9 {
            assert_eq!(get(&mut clients[round % 3]).await, "200");
        }
        let id = |account| Some(format!("spiffe://cluster.local/ns/test/sa/{account}"));
        assert_eq!(said.take(), [id("client"), id("other"), id("third")]);
        // What was for everybody is left at once.
        let closed = async {
            while held.open.get() > 3 {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(2), closed).await.expect("closed");
        assert_eq!(held.dials.get(), 4);
    });
}

#[test]
fn streams_of_http2_are_shared_and_kept_apart_alike() {
    run(async {
        let mut mesh = Mesh::start(hbone(AppProtocol::Http2));
        mesh.apply([naming("client")]);
        let said = mesh.node_agent().await;
        let connections = serve_http2(mesh.backend().await, |request, mut respond| async move {
            assert!(request.headers().get("ambit-original-source").is_none());
            respond.send_response(Response::new(()), true).unwrap();
        });
        for account in ["client", "other", "client", "other"] {
            let mut client = client(&mesh, account).await;
            let get = Request::get("http://web/").header("ambit-original-source", "spiffe://x/ns/y/sa/z");
            let (response, _) = client.send_request(get.body(()).unwrap(), true).unwrap();
            assert_eq!(response.await.unwrap().status(), 200);
        }
        assert_eq!(connections.get(), 2);
        let id = |account| Some(format!("spiffe://cluster.local/ns/test/sa/{account}"));
        assert_eq!(said.take(), [id("client"), id("other")]);
    });
}

#[test]
fn an_endpoint_that_knows_more_is_told_for_whom() {
    run(async {
        let mesh = Mesh::start(hbone(AppProtocol::Http11));
        // Its policies name the client, which has not come here yet.
        let judges = |client: Option<&str>| match client {
            Some(client) if client.ends_with("/client") => Verdict::Serves,
            Some(_) | None => Verdict::Refuses,
        };
        let said = mesh.node_agent_that(judges).await;
        let held = hold(mesh.backend().await);
        let mut admitted = open(&mesh.tunnel("client").await, mesh.vip).await.unwrap();
        assert_eq!(get(&mut admitted).await, "200");
        let mut refused = open(&mesh.tunnel("other").await, mesh.vip).await.unwrap();
        assert_eq!(get(&mut refused).await, "503");
        assert_eq!(held.dials.get(), 1);
        let id = |account| Some(format!("spiffe://cluster.local/ns/test/sa/{account}"));
        assert_eq!(said.take(), [None, id("client"), None, id("other")]);
    });
}

#[test]
fn a_request_that_new_policies_of_its_endpoint_cut_off_is_sent_again_where_it_does_no_harm() {
    run(async {
        for protocol in [AppProtocol::Http11, AppProtocol::Http2] {
            let mesh = Mesh::start(hbone(protocol));
            let said = mesh
                .node_agent_that(|client| if client.is_some() { Verdict::Serves } else { Verdict::Cuts })
                .await;
            let backend = mesh.backend().await;
            if protocol == AppProtocol::Http2 {
                serve_http2(backend, |_request, mut respond| async move {
                    respond.send_response(Response::new(()), true).unwrap();
                });
            } else {
                hold(backend);
            }
            let mut client = open(&mesh.tunnel("client").await, mesh.vip).await.unwrap();
            let mut statuses = Vec::new();
            for method in ["GET", "POST"] {
                write(&mut client, &format!("{method} / HTTP/1.1\r\nhost: web\r\ncontent-length: 0\r\n\r\n"))
                    .await;
                statuses.push(read_message(&mut client).await.0.split(' ').nth(1).unwrap().to_owned());
            }
            assert_eq!(statuses, ["200", "503"], "{protocol:?}");
            assert_eq!(said.take().len(), 3, "{protocol:?}");
        }
    });
}

/// `/moved` is redirected, `/open` goes to the service, and there is no rule for anything else.
fn route() -> Change {
    let rule = |path: &str, action| RouteRule {
        name: None,
        matches: vec![RouteMatch { path: PathMatch::Segments(path.into()), ..RouteMatch::default() }],
        action,
        filters: Filters::default(),
        timeouts: Timeouts::default(),
    };
    let moved = Redirect {
        scheme: None,
        host: Some("other".into()),
        port: RedirectPort::Usual,
        path: None,
        status: 302,
    };
    let target = BackendTarget::Service { service: service_name(), port: 80, subset: None };
    let open = WeightedBackend { weight: 1, target, filters: Filters::default() };
    Change::Http(HttpChange::Route(Arc::new(Route {
        name: RouteName { kind: RouteKind::Http, namespace: "test".into(), name: "web".into() },
        created: 0,
        order: Order::MostSpecific,
        parents: vec![Parent { service: service_name(), port: None }],
        hostnames: Vec::new(),
        rules: vec![
            rule("/moved", RuleAction::Redirect(moved)),
            rule("/open", RuleAction::Forward(vec![open])),
        ],
    })))
}

#[test]
fn two_hundred_requests_of_every_outcome_on_one_connection_are_strangers_to_each_other() {
    run(async {
        let mut mesh = Mesh::start(Setup { protocol: AppProtocol::Http11, ..Setup::default() });
        mesh.apply([route(), deny("/open/secret")]);
        let recorded = record(mesh.backend().await);
        let mut client = mesh.connect().await;
        let mut sent = Vec::new();
        for round in 0..200 {
            let (path, status) = [
                ("/open", 200),
                ("/open/secret", 403),
                ("/elsewhere", 404),
                ("/moved", 302),
                ("/open%2fsecret", 400),
            ][round % 5];
            let body = format!("{round} ").repeat(round * 3);
            let request = if round % 2 == 0 {
                format!(
                    "POST {path} HTTP/1.1\r\nhost: web\r\nx-round: {round}\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                )
            } else {
                let chunk =
                    if body.is_empty() { String::new() } else { format!("{:x}\r\n{body}\r\n", body.len()) };
                format!(
                    "POST {path} HTTP/1.1\r\nhost: web\r\nx-round: {round}\r\ntransfer-encoding: chunked\r\n\r\n{chunk}0\r\n\r\n"
                )
            };
            write(&mut client, &request).await;
            let (head, _) = read_message(&mut client).await;
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "round {round}: {head}");
            assert_eq!(head.contains("location: "), status == 302, "round {round}: {head}");
            assert!(!head.contains("connection: close"), "round {round}: {head}");
            if status == 200 {
                sent.push((round, body));
            }
        }
        let reached = recorded.take();
        assert_eq!(reached.len(), sent.len());
        for (request, (round, body)) in reached.iter().zip(sent) {
            assert!(request.contains(&format!("x-round: {round}\r\n")), "{round}: {request}");
            assert!(request.contains(&body), "{round}: {request}");
        }
        assert_eq!(recorded.connections.get(), 1);
    });
}
