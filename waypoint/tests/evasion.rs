//! No way of writing a request gets around a policy: what was authorized is what is sent, and at most one
//! request reaches the application for each that was allowed. Raw octets at both ends. Long because it is one list of
//! ways, most of it the octets themselves.

#![expect(clippy::unwrap_used, reason = "what fails in a test's own set-up fails the test")]

#[path = "support/raw.rs"]
mod raw;
#[expect(dead_code, reason = "other tests use more of it")]
mod support;

use ambit_mesh::http::{Condition, HttpRule, Operation, Values};
use ambit_mesh::policy::StringMatch;
use ambit_mesh::service::AppProtocol;
use ambit_mesh::snapshot::Change;
use raw::{DATA, END_HEADERS, END_STREAM, HEADERS, Heard, RawHttp2, Recorded, block, frame, record};
use support::{Mesh, Setup, deny, policy, read_message, read_until, run, write};
use tokio::io::AsyncReadExt;

/// What a row expects.
#[derive(Clone, Copy, Debug)]
enum Expect<'a> {
    /// This status, and nothing reaches the application.
    Refused(u16),
    /// One request that contains this, and an answer.
    Sent(&'a str),
}
use Expect::{Refused, Sent};

fn exact(value: &str) -> Values {
    Values { any_of: vec![StringMatch::Exact(value.into())], none_of: Vec::new() }
}

fn deny_host(host: &str) -> Change {
    let to = vec![Operation { hosts: exact(host), ..Operation::default() }];
    policy("deny-host", vec![HttpRule { from: Vec::new(), to, when: Vec::new() }])
}

fn deny_header(name: &'static str, value: &str) -> Change {
    let when =
        vec![Condition::RequestHeader { name: http::HeaderName::from_static(name), values: exact(value) }];
    policy("deny-header", vec![HttpRule { from: Vec::new(), to: Vec::new(), when }])
}

/// HTTP/1 applications: what is not declared would be spoken to as the client speaks.
fn mesh() -> Mesh {
    Mesh::start(Setup { protocol: AppProtocol::Http11, ..Setup::default() })
}

async fn http1(mesh: &Mesh, recorded: &Recorded, request: &str, expected: Expect<'_>) {
    let mut client = mesh.connect().await;
    write(&mut client, request).await;
    let (head, _) = read_message(&mut client).await;
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    check(request, status, &recorded.take(), expected);
}

async fn http2(mesh: &Mesh, recorded: &Recorded, fields: &[(&str, &str)], expected: Expect<'_>) {
    let mut client = RawHttp2::begin(mesh.connect().await).await;
    let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
    client.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(&fields))).await;
    let name =
        format!("{:?}", fields.iter().map(|(_, value)| value.escape_ascii().to_string()).collect::<Vec<_>>());
    match (client.hear(1).await, expected) {
        (Heard::Status(status), _) => check(&name, status, &recorded.take(), expected),
        (Heard::Reset | Heard::Gone, Refused(_)) => assert_eq!(recorded.take(), [""; 0], "{name}"),
        (heard, Sent(_)) => panic!("{name}: {heard:?}"),
    }
}

fn check(name: &str, status: u16, reached: &[String], expected: Expect<'_>) {
    match expected {
        Refused(wanted) => {
            assert_eq!(status, wanted, "{name}");
            assert_eq!(reached, [""; 0], "{name}: reached the application");
        }
        Sent(part) => {
            assert_eq!(status, 200, "{name}");
            let [request] = reached else { panic!("{name}: {reached:?}") };
            assert!(request.contains(part), "{name}: {request}");
        }
    }
}

/// The path that is asked for, and what becomes of it where `/admin*` is denied.
const PATHS: [(&str, Expect<'static>); 33] = [
    ("/admin", Refused(403)),
    ("/admin/", Refused(403)),
    ("/admin?x=1", Refused(403)),
    ("/%61dmin", Refused(403)),
    ("/%61%64%6d%69%6e", Refused(403)),
    ("/admin%2e", Refused(403)),
    ("/admin%3fx", Refused(403)),
    ("/admin%2f", Refused(400)),
    ("/admin%2Fx", Refused(400)),
    ("/admin%5cx", Refused(400)),
    ("/admin;x=1", Refused(400)),
    ("/admin%3bx", Refused(400)),
    ("/admin%00", Refused(400)),
    ("/admin%0d%0ax", Refused(400)),
    ("/admin%", Refused(400)),
    ("/admin%zz", Refused(400)),
    ("/%2561dmin", Refused(400)),
    ("/%25%36%31dmin", Refused(400)),
    ("//admin", Refused(400)),
    ("/open//admin", Refused(400)),
    ("/./admin", Refused(400)),
    ("/open/../admin", Refused(400)),
    ("/open/..", Refused(400)),
    ("/open/%2e%2e/admin", Refused(400)),
    ("/open/.%2E/admin", Refused(400)),
    ("/open/..;/admin", Refused(400)),
    ("/open%2f..%2fadmin", Refused(400)),
    ("/open/%252e%252e/admin", Refused(400)),
    ("/open/%25%32e%252%65/admin", Refused(400)),
    // In one form, the one that was judged.
    ("/open%41?x=/../admin%2f;//", Sent("GET /openA?x=/../admin%2f;// HTTP/1.1\r\n")),
    ("/open/%c3%a4%7e", Sent("GET /open/%C3%A4~ HTTP/1.1\r\n")),
    ("/Admin", Sent("GET /Admin HTTP/1.1\r\n")),
    ("/open?a?b", Sent("GET /open?a?b HTTP/1.1\r\n")),
];

#[test]
fn no_way_of_writing_a_path_gets_around_a_policy() {
    run(async {
        let mut mesh = mesh();
        mesh.apply([deny("/admin")]);
        let recorded = record(mesh.backend().await);
        for (path, expected) in PATHS {
            http1(&mesh, &recorded, &format!("GET {path} HTTP/1.1\r\nhost: web\r\n\r\n"), expected).await;
            let absolute = format!("GET http://web{path} HTTP/1.1\r\nhost: web\r\n\r\n");
            http1(&mesh, &recorded, &absolute, expected).await;
            let pseudo = [(":method", "GET"), (":scheme", "http"), (":authority", "web"), (":path", path)];
            http2(&mesh, &recorded, &pseudo, expected).await;
        }
        for target in [
            "/open#/../admin",
            "/open\\..\\admin",
            "/\u{e4}",
            "admin",
            "*",
            "http:///admin",
            "ftp://web/admin",
        ] {
            http1(&mesh, &recorded, &format!("GET {target} HTTP/1.1\r\nhost: web\r\n\r\n"), Refused(400))
                .await;
        }
        // HTTP/2 cuts a fragment off before anybody sees it: then it is the rest that is judged and sent.
        for (path, expected) in [
            ("/open#/../admin", Sent("GET /open HTTP/1.1\r\n")),
            ("/admin#/open", Refused(403)),
            ("/open\\..\\admin", Refused(400)),
            ("/\u{e4}", Refused(400)),
            ("admin", Refused(400)),
            ("*", Refused(400)),
            ("", Refused(400)),
            ("/open HTTP/1.1\r\nx: y", Refused(400)),
            ("/open\u{0}", Refused(400)),
        ] {
            let pseudo = [(":method", "GET"), (":scheme", "http"), (":authority", "web"), (":path", path)];
            http2(&mesh, &recorded, &pseudo, expected).await;
        }
    });
}

#[test]
fn where_no_policy_looks_at_paths_they_pass_unchanged() {
    run(async {
        let mesh = mesh();
        let recorded = record(mesh.backend().await);
        for path in ["/a%2Fb/../c;d//e?x=%2e", "//a", "/a/.", "/a%00", "/a%zz"] {
            let sent = format!("GET {path} HTTP/1.1\r\n");
            http1(&mesh, &recorded, &format!("GET {path} HTTP/1.1\r\nhost: web\r\n\r\n"), Sent(&sent)).await;
            let pseudo = [(":method", "GET"), (":scheme", "http"), (":authority", "web"), (":path", path)];
            http2(&mesh, &recorded, &pseudo, Sent(&sent)).await;
        }
    });
}

#[test]
fn no_way_of_writing_a_host_gets_around_a_policy() {
    run(async {
        let mut mesh = mesh();
        mesh.apply([deny_host("secret.example")]);
        let recorded = record(mesh.backend().await);
        for (host, expected) in [
            ("secret.example", Refused(403)),
            ("SECRET.Example", Refused(403)),
            ("secret.example.", Refused(403)),
            ("secret.example:80", Refused(403)),
            ("secret.example:080", Refused(403)),
            ("Secret.example.:8080", Refused(403)),
            ("secret.example:", Refused(400)),
            ("secret.example:99999", Refused(400)),
            ("secret.example:80:80", Refused(400)),
            ("u@secret.example", Refused(400)),
            ("web@secret.example:80", Refused(400)),
            ("secret.example/x", Refused(400)),
            ("secret.example, web", Refused(400)),
            ("secret.example web", Refused(400)),
            ("secret%2eexample", Refused(400)),
            ("secret.example\\", Refused(400)),
            ("s\u{e9}cret.example", Refused(400)),
            ("", Refused(400)),
            ("Web.Example:80", Sent("host: Web.Example:80\r\n")),
            ("[::1]:80", Sent("host: [::1]:80\r\n")),
        ] {
            http1(&mesh, &recorded, &format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"), expected).await;
            let pseudo = [(":method", "GET"), (":scheme", "http"), (":path", "/")];
            http2(&mesh, &recorded, &[&pseudo[..], &[(":authority", host)]].concat(), expected).await;
            http2(&mesh, &recorded, &[&pseudo[..], &[("host", host)]].concat(), expected).await;
        }
        for (request, expected) in [
            ("GET / HTTP/1.1\r\nhost:\tsecret.example  \r\n\r\n", Refused(403)),
            ("GET / HTTP/1.1\r\nhost: web\r\nHOST: secret.example\r\n\r\n", Refused(400)),
            ("GET http://secret.example/ HTTP/1.1\r\nhost: web\r\n\r\n", Refused(400)),
            ("GET http://web/ HTTP/1.1\r\nhost: secret.example\r\n\r\n", Refused(400)),
            ("GET http://secret.example/ HTTP/1.1\r\nhost: Secret.example\r\n\r\n", Refused(403)),
            ("GET http://secret.example/ HTTP/1.0\r\n\r\n", Refused(403)),
            ("GET http://web@secret.example/ HTTP/1.1\r\nhost: web@secret.example\r\n\r\n", Refused(400)),
            ("GET / HTTP/1.1\r\n\r\n", Refused(400)),
        ] {
            http1(&mesh, &recorded, request, expected).await;
        }
        let pseudo = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "web")];
        for hosts in [&[("host", "secret.example")][..], &[("host", "web"), ("host", "secret.example")]] {
            http2(&mesh, &recorded, &[&pseudo[..], hosts].concat(), Refused(400)).await;
        }
    });
}

#[test]
fn no_way_of_writing_a_header_gets_around_a_policy() {
    run(async {
        let mut mesh = mesh();
        mesh.apply([deny_header("x-role", "admin")]);
        let recorded = record(mesh.backend().await);
        for (fields, expected) in [
            ("x-role: admin", Refused(403)),
            ("X-ROLE:admin", Refused(403)),
            ("x-Role:\t admin \t", Refused(403)),
            ("x-role: guest\r\nx-role: admin", Refused(403)),
            ("x-role: admin\r\nX-Role: guest", Refused(403)),
            ("x-role : admin", Refused(400)),
            ("x-role\t: admin", Refused(400)),
            (" x-role: admin", Refused(400)),
            ("a: b\r\n x-role: admin", Refused(400)),
            ("x-role:\r\n admin", Refused(400)),
            ("x-role: ad\0min", Refused(400)),
            ("x-role: admin\r", Refused(400)),
            ("a: b\nx-role: admin", Refused(400)),
            ("connection: x-role\r\nx-role: admin", Refused(400)),
            ("connection: close, X-Role\r\nx-role: guest", Refused(400)),
            ("x-role: guest", Sent("x-role: guest\r\n")),
        ] {
            http1(&mesh, &recorded, &format!("GET / HTTP/1.1\r\nhost: web\r\n{fields}\r\n\r\n"), expected)
                .await;
        }
        let pseudo = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "web")];
        for (fields, expected) in [
            (&[("x-role", "admin")][..], Refused(403)),
            (&[("x-role", "guest"), ("x-role", "admin")], Refused(403)),
            (&[("x-role", "admin ")], Refused(400)),
            (&[("x-role", "\tadmin")], Refused(400)),
            (&[("x-role", "admin\r\n")], Refused(400)),
            (&[("X-Role", "admin")], Refused(400)),
            (&[("x-role ", "admin")], Refused(400)),
            (&[("a: b\r\nx-role", "admin")], Refused(400)),
            (&[("connection", "x-role"), ("x-role", "admin")], Refused(400)),
            (&[("x-role", "guest")], Sent("x-role: guest\r\n")),
        ] {
            http2(&mesh, &recorded, &[&pseudo[..], fields].concat(), expected).await;
        }
    });
}

#[test]
fn nobody_strips_what_the_far_end_is_to_see() {
    run(async {
        let mesh = mesh();
        let recorded = record(mesh.backend().await);
        for name in [
            "host",
            "authorization",
            "Cookie",
            "content-length",
            "content-type",
            "transfer-encoding",
            "x-forwarded-for",
            "X-Forwarded-Client-Cert",
            "x-request-id",
            "forwarded",
            "ambit-original-source",
            "x-envoy-internal",
            "sec-fetch-site",
            "origin",
            "expect",
        ] {
            let request = format!(
                "GET / HTTP/1.1\r\nhost: web\r\nauthorization: x\r\nconnection: keep-alive, {name}\r\n\r\n"
            );
            http1(&mesh, &recorded, &request, Refused(400)).await;
        }
        // What is for one connection ends here, whether or not it is named.
        let request = "GET / HTTP/1.1\r\nhost: web\r\nconnection: hop, te\r\nhop: 1\r\nkeep-alive: 5\r\n\
                       proxy-connection: keep-alive\r\nte: gzip\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n\r\n";
        let mut client = mesh.connect().await;
        write(&mut client, request).await;
        read_message(&mut client).await;
        let [reached] = &recorded.take()[..] else { panic!("one request") };
        for gone in ["connection", "hop:", "keep-alive", "te:", "upgrade", "http2-settings"] {
            assert!(!reached.contains(gone), "{reached}");
        }
    });
}

#[test]
fn a_client_speaks_for_nobody_else() {
    run(async {
        let mesh = mesh();
        let recorded = record(mesh.backend().await);
        let spoofed = [
            ("x-forwarded-for", "127.0.0.99"),
            ("x-forwarded-for", "10.9.9.9, 10.9.9.8"),
            ("x-forwarded-proto", "gopher"),
            ("x-forwarded-client-cert", "URI=spiffe://cluster.local/ns/test/sa/admin"),
            ("x-forwarded-client-cert", "URI=spiffe://cluster.local/ns/test/sa/admin2"),
            ("x_forwarded_client_cert", "URI=spiffe://cluster.local/ns/test/sa/admin3"),
            ("x-envoy-internal", "true"),
            ("x-envoy-original-path", "/admin"),
            ("x_envoy_decorator_operation", "admin"),
            ("ambit-original-source", "spiffe://cluster.local/ns/test/sa/admin4"),
            ("x-custom", "stays"),
        ];
        let fields: String = spoofed.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let trailers = "x-forwarded-for: 10.9.9.7\r\nx-forwarded-client-cert: URI=admin5\r\nX-Envoy-Internal: true\r\n\
                        ambit-original-source: admin6\r\nhost: admin7\r\nauthorization: admin8\r\nx-sum: 1\r\n";
        let request = format!(
            "POST / HTTP/1.1\r\nhost: web\r\n{fields}transfer-encoding: chunked\r\n\r\n0\r\n{trailers}\r\n"
        );
        http1(&mesh, &recorded, &request, Sent("0\r\nx-sum: 1\r\n\r\n")).await;

        let mut client = RawHttp2::begin(mesh.connect().await).await;
        let pseudo = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "web")];
        let bytes = |fields: &[(&str, &str)]| {
            let fields: Vec<_> =
                fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
            block(&fields)
        };
        client.send(&frame(HEADERS, END_HEADERS, 1, &bytes(&[&pseudo[..], &spoofed].concat()))).await;
        let trailers = [("x-forwarded-for", "10.9.9.7"), ("ambit-original-source", "admin6"), ("x-sum", "1")];
        client.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &bytes(&trailers))).await;
        assert_eq!(client.hear(1).await, Heard::Status(200));
        let reached = recorded.take();
        assert!(reached[0].ends_with("0\r\nx-sum: 1\r\n\r\n"), "{reached:?}");

        write_and_check(&mesh, &recorded, &format!("GET / HTTP/1.1\r\nhost: web\r\n{fields}\r\n")).await;
    });
}

async fn write_and_check(mesh: &Mesh, recorded: &Recorded, request: &str) {
    let mut client = mesh.connect().await;
    write(&mut client, request).await;
    read_message(&mut client).await;
    let reached = recorded.take().concat().to_ascii_lowercase();
    assert!(
        !reached.contains("admin") && !reached.contains("envoy") && !reached.contains("ambit"),
        "{reached}"
    );
    // Who reads it from the right finds what this proxy saw.
    assert!(
        reached.contains("\r\nx-forwarded-for: 127.0.0.99, 10.9.9.9, 10.9.9.8, 127.0.0.1\r\n"),
        "{reached}"
    );
    assert!(
        reached.contains("\r\nx-forwarded-proto: http\r\n") && reached.contains("x-custom: stays"),
        "{reached}"
    );
    let certificate = "x-forwarded-client-cert: by=spiffe://cluster.local/ns/test/sa/waypoint;uri=spiffe://cluster.local/ns/test/sa/client\r\n";
    assert_eq!(reached.matches("x-forwarded-client-cert").count(), 1, "{reached}");
    assert!(reached.contains(certificate), "{reached}");
}

#[test]
fn no_framing_hides_a_second_request() {
    run(async {
        let mut mesh = mesh();
        mesh.apply([deny("/admin")]);
        let recorded = record(mesh.backend().await);
        let hidden = "GET /admin HTTP/1.1\r\nhost: web\r\n\r\n";
        let length = hidden.len();
        for (name, request, reached) in [
            ("behind", format!("GET /a HTTP/1.1\r\nhost: web\r\n\r\n{hidden}"), "GET /a HTTP/1.1\r\n"),
            (
                "behind a body",
                format!("POST /a HTTP/1.1\r\nhost: web\r\ncontent-length: 2\r\n\r\nhi{hidden}"),
                "content-length: 2\r\n\r\nhi",
            ),
            (
                "as a body",
                format!("POST /a HTTP/1.1\r\nhost: web\r\ncontent-length: {length}\r\n\r\n{hidden}"),
                hidden,
            ),
            (
                "behind chunks, whose extensions nobody reads alike",
                format!(
                    "POST /a HTTP/1.1\r\nhost: web\r\ntransfer-encoding: chunked\r\n\r\n2;a=\"b\"\r\nhi\r\n00;c\r\n\r\n{hidden}"
                ),
                "transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            ),
            (
                "as a chunk",
                format!(
                    "POST /a HTTP/1.1\r\nhost: web\r\ntransfer-encoding: Chunked\r\n\r\n{length:X}\r\n{hidden}\r\n0\r\n\r\n"
                ),
                hidden,
            ),
            (
                "behind GET with a body",
                format!("GET /a HTTP/1.1\r\nhost: web\r\ncontent-length: 2\r\n\r\nhi{hidden}"),
                "content-length: 2\r\n\r\nhi",
            ),
            (
                "behind framing in other letters",
                format!(
                    "POST /a HTTP/1.1\r\nhost: web\r\ntransfer_encoding: chunked\r\ncontent-length: 2\r\ncontent_length: 99\r\n\r\nhi{hidden}"
                ),
                "content-length: 2\r\n\r\nhi",
            ),
            (
                "behind a wish to change to h2c",
                format!(
                    "GET /a HTTP/1.1\r\nhost: web\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n\r\n{hidden}"
                ),
                "GET /a HTTP/1.1\r\n",
            ),
        ] {
            let mut client = mesh.connect().await;
            write(&mut client, &request).await;
            assert!(read_message(&mut client).await.0.starts_with("HTTP/1.1 200 "), "{name}");
            let requests = recorded.take();
            assert_eq!(requests.len(), 1, "{name}: {requests:?}");
            assert!(requests[0].contains(reached), "{name}: {requests:?}");
            assert!(!requests[0].contains('_') && !requests[0].contains("upgrade"), "{name}: {requests:?}");
            if !requests[0].contains(hidden) {
                assert!(read_message(&mut client).await.0.starts_with("HTTP/1.1 403 "), "{name}");
            }
            assert_eq!(recorded.take(), [""; 0], "{name}");
        }
    });
}

#[test]
fn what_breaks_off_or_is_malformed_is_never_whole_at_the_application() {
    run(async {
        let mesh = mesh();
        let recorded = record(mesh.backend().await);
        let chunked = "POST / HTTP/1.1\r\nhost: web\r\ntransfer-encoding: chunked\r\n\r\n";
        for (name, body) in [
            ("LF alone behind a size", "2\nhi\r\n0\r\n\r\n"),
            ("no end of a chunk", "2\r\nhiGET /admin HTTP/1.1\r\n\r\n0\r\n\r\n"),
            ("LF alone behind a chunk", "2\r\nhi\n0\r\n\r\n"),
            ("a prefix of C", "0x2\r\nhi\r\n0\r\n\r\n"),
            ("a sign", "+2\r\nhi\r\n0\r\n\r\n"),
            ("a sign before the last", "2\r\nhi\r\n-0\r\n\r\n"),
            ("a space", "2 \r\nhi\r\n0\r\n\r\n"),
            ("no size", "\r\nhi\r\n0\r\n\r\n"),
            ("a size beyond 64 bits", "10000000000000002\r\nhi\r\n0\r\n\r\n"),
            ("CR in an extension", "2;a\rb\r\nhi\r\n0\r\n\r\n"),
            ("trailers without a colon", "2\r\nhi\r\n0\r\nnonsense\r\n\r\n"),
            ("folded trailers", "2\r\nhi\r\n0\r\na: b\r\n c\r\n\r\n"),
        ] {
            let mut client = mesh.connect().await;
            write(&mut client, &format!("{chunked}{body}")).await;
            let mut room = Vec::new();
            // Told why, or cut; never an answer of the application.
            let _ = client.read_to_end(&mut room).await;
            let heard = String::from_utf8_lossy(&room);
            assert!(!heard.contains("HTTP/1.1 200"), "{name}: {heard}");
            assert_eq!(recorded.take(), [""; 0], "{name}");
        }
        let pseudo = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "web")];
        for (name, length, data) in
            [("shorter than it says", "5", "hi"), ("longer than it says", "1", "hi"), ("a sign", "+2", "hi")]
        {
            let mut client = RawHttp2::begin(mesh.connect().await).await;
            let fields = [&pseudo[..], &[("content-length", length)]].concat();
            let fields: Vec<_> =
                fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
            client.send(&frame(HEADERS, END_HEADERS, 1, &block(&fields))).await;
            client.send(&frame(DATA, END_STREAM, 1, data.as_bytes())).await;
            assert_ne!(client.hear(1).await, Heard::Status(200), "{name}");
            assert_eq!(recorded.take(), [""; 0], "{name}");
        }
    });
}

#[test]
fn framing_with_two_readings_reaches_nobody() {
    run(async {
        let mesh = mesh();
        let recorded = record(mesh.backend().await);
        let post = "POST / HTTP/1.1\r\nhost: web\r\n";
        for (fields, status) in [
            ("content-length: 2\r\ncontent-length: 2", 400),
            ("content-length: 2\r\nContent-Length: 3", 400),
            ("content-length: 2, 2", 400),
            ("content-length: 0x2", 400),
            ("content-length: 2\r\ntransfer-encoding: identity", 400),
            ("transfer-encoding: identity", 400),
            ("transfer-encoding: chunked, chunked", 400),
            ("transfer-encoding: chunked;q=1", 400),
            ("transfer-encoding: \"chunked\"", 400),
            ("transfer-encoding: \u{b}chunked", 400),
            ("transfer-encoding:\r\n chunked", 400),
            ("Transfer-Encoding: chunked\r\ntransfer-encoding: cow", 400),
            ("connection: upgrade\r\nupgrade: websocket\r\ncontent-length: 2", 400),
            ("connection: upgrade\r\nupgrade: h2c\r\ntransfer-encoding: chunked", 400),
            ("expect: 100-continue, 100-continue\r\ncontent-length: 2", 417),
        ] {
            http1(&mesh, &recorded, &format!("{post}{fields}\r\n\r\nhi"), Refused(status)).await;
        }
        for (request, status) in [
            ("POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
            ("GET / HTTP/1.1 \r\nhost: web\r\n\r\n", 400),
            ("GET\t/ HTTP/1.1\r\nhost: web\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\rhost: web\r\n\r\n", 400),
            ("GET / HTTP/2.0\r\nhost: web\r\n\r\n", 505),
            ("GET / HTTP/1.10\r\nhost: web\r\n\r\n", 505),
            ("GET / HTTP/0.9\r\nhost: web\r\n\r\n", 505),
            ("GET /\r\nhost: web\r\n\r\n", 400),
            ("CONNECT web:80 HTTP/1.1\r\nhost: web:80\r\n\r\n", 400),
            ("get / HTTP/1.1\r\nhost: web\r\n\r\n", 200),
        ] {
            let mut client = mesh.connect().await;
            write(&mut client, request).await;
            let head = read_until(&mut client, "\r\n\r\n").await;
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {head}");
            assert_eq!(recorded.take().len(), usize::from(status == 200), "{request:?}");
        }
    });
}

#[test]
fn pseudo_headers_have_one_reading() {
    run(async {
        let mut mesh = mesh();
        mesh.apply([deny("/admin")]);
        let recorded = record(mesh.backend().await);
        let whole = [(":method", "GET"), (":scheme", "http"), (":path", "/open"), (":authority", "web")];
        let without = |name: &str| whole.into_iter().filter(|field| field.0 != name).collect::<Vec<_>>();
        let with = |name: &str, value: &'static str| {
            whole.map(|field| if field.0 == name { (field.0, value) } else { field }).to_vec()
        };
        let and = |field: (&'static str, &'static str)| [&whole[..], &[field]].concat();
        let before = |field: (&'static str, &'static str)| [&[field], &whole[..]].concat();
        for fields in [
            and((":path", "/admin")),
            before((":path", "/admin")),
            and((":authority", "other")),
            and((":method", "POST")),
            and((":scheme", "https")),
            and((":status", "200")),
            and((":protocol", "websocket")),
            and((":unknown", "x")),
            before(("x-a", "b")),
            without(":path"),
            without(":method"),
            without(":scheme"),
            without(":authority"),
            with(":method", ""),
            with(":method", "GET /admin HTTP/1.1\r\nx"),
            with(":method", "CONNECT"),
            with(":authority", "web/admin"),
            with(":authority", "web\r\nx: y"),
            and(("te", "gzip")),
            and(("transfer-encoding", "chunked")),
            and(("upgrade", "websocket")),
            and(("keep-alive", "1")),
            and(("content-length", "5")),
        ] {
            http2(&mesh, &recorded, &fields, Refused(400)).await;
        }
        http2(&mesh, &recorded, &whole, Sent("GET /open HTTP/1.1\r\nhost: web\r\n")).await;
        http2(&mesh, &recorded, &with(":scheme", "https"), Sent("GET /open HTTP/1.1\r\nhost: web\r\n")).await;
    });
}
