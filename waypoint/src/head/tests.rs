use super::*;

fn request(head: &str) -> Result<RequestHead, Refusal> {
    let text = head.replace('\n', "\r\n") + "\r\n\r\n";
    raw(text.as_bytes())
}

fn raw(octets: &[u8]) -> Result<RequestHead, Refusal> {
    let (taken, head) = parse_request(octets)?.expect("a whole head");
    assert_eq!(taken, octets.len());
    Ok(head)
}

#[test]
fn what_has_two_readings_is_refused() {
    for (name, head, refusal) in [
        (
            "both lengths",
            "POST / HTTP/1.1\nhost: a\ncontent-length: 5\ntransfer-encoding: chunked",
            Refusal::AmbiguousLength,
        ),
        (
            "another coding",
            "POST / HTTP/1.1\nhost: a\ntransfer-encoding: gzip, chunked",
            Refusal::TransferEncoding,
        ),
        (
            "coding twice",
            "POST / HTTP/1.1\nhost: a\ntransfer-encoding: chunked\ntransfer-encoding: chunked",
            Refusal::TransferEncoding,
        ),
        (
            "coding that is almost chunked",
            "POST / HTTP/1.1\nhost: a\ntransfer-encoding: xchunked",
            Refusal::TransferEncoding,
        ),
        ("chunks in 1.0", "POST / HTTP/1.0\nhost: a\ntransfer-encoding: chunked", Refusal::TransferEncoding),
        (
            "lengths that differ",
            "POST / HTTP/1.1\nhost: a\ncontent-length: 5\ncontent-length: 6",
            Refusal::ContentLength,
        ),
        ("a list of lengths", "POST / HTTP/1.1\nhost: a\ncontent-length: 5, 5", Refusal::ContentLength),
        ("a signed length", "POST / HTTP/1.1\nhost: a\ncontent-length: +5", Refusal::ContentLength),
        (
            "too large a length",
            "POST / HTTP/1.1\nhost: a\ncontent-length: 99999999999999999999",
            Refusal::ContentLength,
        ),
        ("a folded field", "GET / HTTP/1.1\nhost: a\nx: 1\n 2", Refusal::FieldValue),
        ("space before the colon", "GET / HTTP/1.1\nhost: a\ncontent-length : 5", Refusal::FieldName),
        ("no colon", "GET / HTTP/1.1\nhost: a\nnonsense", Refusal::FieldName),
        ("NUL in a value", "GET / HTTP/1.1\nhost: a\nx: a\0b", Refusal::FieldValue),
        ("a form feed after a value", "GET / HTTP/1.1\nhost: a\x0c", Refusal::FieldValue),
        ("a form feed before a value", "POST / HTTP/1.1\nhost: a\ncontent-length:\x0c5", Refusal::FieldValue),
        ("space in the target", "GET /a b HTTP/1.1\nhost: a", Refusal::FirstLine),
        ("two spaces", "GET  / HTTP/1.1\nhost: a", Refusal::FirstLine),
        ("a fragment", "GET /a#b HTTP/1.1\nhost: a", Refusal::Target),
        ("octets beyond ASCII", "GET /ä HTTP/1.1\nhost: a", Refusal::Target),
        ("no leading slash", "GET a HTTP/1.1\nhost: a", Refusal::Target),
        ("another scheme", "GET ftp://a/ HTTP/1.1\nhost: a", Refusal::Target),
        ("an asterisk for GET", "GET * HTTP/1.1\nhost: a", Refusal::Target),
        ("no host", "GET / HTTP/1.1\nx: 1", Refusal::Host),
        ("an empty host", "GET / HTTP/1.1\nhost:", Refusal::Host),
        ("two hosts", "GET / HTTP/1.1\nhost: a\nhost: a", Refusal::Host),
        ("a path in the host", "GET / HTTP/1.1\nhost: a/b", Refusal::Host),
        ("a user in the host", "GET / HTTP/1.1\nhost: u@a", Refusal::Host),
        ("a list of hosts", "GET / HTTP/1.1\nhost: a, b", Refusal::Host),
        ("a port that is none", "GET / HTTP/1.1\nhost: a:99999", Refusal::Host),
        ("another host in the target", "GET http://b/ HTTP/1.1\nhost: a", Refusal::HostMismatch),
        ("CONNECT", "CONNECT a:80 HTTP/1.1\nhost: a:80", Refusal::Method),
        ("a method that is no token", "G(T / HTTP/1.1\nhost: a", Refusal::Method),
        ("HTTP/2 in a line", "GET / HTTP/2.0\nhost: a", Refusal::Version),
        ("HTTP/1.2", "GET / HTTP/1.2\nhost: a", Refusal::Version),
        ("no version", "GET /\nhost: a", Refusal::FirstLine),
        (
            "an upgrade with a body",
            "POST / HTTP/1.1\nhost: a\nconnection: upgrade\nupgrade: h2c\ncontent-length: 3",
            Refusal::UpgradeBody,
        ),
        ("stripping a credential", "GET / HTTP/1.1\nhost: a\nconnection: authorization", Refusal::Connection),
        (
            "stripping who it is for",
            "GET / HTTP/1.1\nhost: a\nconnection: x-forwarded-for",
            Refusal::Connection,
        ),
        ("another expectation", "GET / HTTP/1.1\nhost: a\nexpect: 200-ok", Refusal::Expect),
    ] {
        assert_eq!(request(head).err(), Some(refusal), "{name}");
    }
}

#[test]
fn lines_end_with_cr_lf() {
    for octets in [
        &b"GET / HTTP/1.1\nhost: a\n\n"[..],
        b"GET / HTTP/1.1\r\nhost: a\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\rb\r\n\r\n",
        b"\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
    ] {
        assert_eq!(raw(octets).err(), Some(Refusal::LineEnd), "{}", octets.escape_ascii());
    }
}

#[test]
fn heads_are_bounded() {
    let many = format!("GET / HTTP/1.1\nhost: a{}", "\nx: 1".repeat(MAX_FIELDS));
    assert_eq!(request(&many).err(), Some(Refusal::TooManyFields));
    let large = format!("GET / HTTP/1.1\nhost: a\nx: {}", "1".repeat(MAX_HEAD));
    assert_eq!(request(&large).err(), Some(Refusal::TooLarge));
    assert_eq!(parse_request(&vec![b'a'; MAX_HEAD + 1]).err(), Some(Refusal::TooLarge));
    assert_eq!(Refusal::TooLarge.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
}

#[test]
fn an_unfinished_head_is_waited_for() {
    let whole = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    for length in 0..whole.len() {
        assert!(matches!(parse_request(&whole[..length]), Ok(None)), "{length}");
    }
    let mut followed = whole.to_vec();
    followed.extend_from_slice(b"GET");
    assert_eq!(parse_request(&followed).unwrap().unwrap().0, whole.len());
}

#[test]
fn what_has_one_reading_is_kept_as_it_came() {
    let head = request("POST /a%2Fb/../c;d?x=[1]&y=//# HTTP/1.1\nhost: a").err();
    assert_eq!(head, Some(Refusal::Target));
    let head = request(
        "POST /a%2Fb/../c;d?x=1&y=//z HTTP/1.1\nHost: Shop.Example:8080\nX-A: 1\nx-a: 2\nContent-Length: 3",
    )
    .unwrap();
    assert_eq!(head.path, "/a%2Fb/../c;d?x=1&y=//z");
    assert_eq!(head.authority.as_deref(), Some("Shop.Example:8080"));
    assert_eq!(head.body, BodyLength::Exactly(3));
    assert_eq!(head.headers.get_all("x-a").iter().count(), 2);
    assert!(head.is_persistent());

    let absolute = request("GET http://A:80/x?y HTTP/1.1\nhost: a:80").unwrap();
    assert_eq!((absolute.path.as_str(), absolute.authority.as_deref()), ("/x?y", Some("a:80")));
    let bare = request("GET http://a HTTP/1.1\nhost: a").unwrap();
    assert_eq!(bare.path, "/");
    let query = request("GET http://a?q HTTP/1.1\nhost: a").unwrap();
    assert_eq!(query.path, "/?q");
    assert_eq!(request("OPTIONS * HTTP/1.1\nhost: a").unwrap().path, "*");
    assert!(raw(b"\r\nGET / HTTP/1.1\r\nhost: [::1]:80\r\n\r\n").is_ok());
}

#[test]
fn versions_differ_in_what_is_assumed() {
    let old = request("GET / HTTP/1.0").unwrap();
    assert_eq!((old.authority.clone(), old.is_persistent()), (None, false));
    assert!(request("GET / HTTP/1.0\nconnection: keep-alive").unwrap().is_persistent());
    assert!(!request("GET / HTTP/1.1\nhost: a\nconnection: Close").unwrap().is_persistent());
    assert!(
        request("POST / HTTP/1.1\nhost: a\nexpect: 100-Continue\ncontent-length: 1")
            .unwrap()
            .expects_continue
    );
    assert!(
        !request("POST / HTTP/1.0\nhost: a\nexpect: 100-continue\ncontent-length: 1")
            .unwrap()
            .expects_continue
    );
}

#[test]
fn fields_of_one_connection_end_here() {
    let head = request("GET / HTTP/1.1\nhost: a\nconnection: close, te, hop\nhop: 1\nte: trailers\nkeep-alive: 5\nproxy-connection: close\ncookie: c").unwrap();
    assert!(head.connection.trailers);
    let mut headers = head.headers.clone();
    strip_hop_by_hop(&mut headers, &head.connection);
    let left: Vec<_> = headers.keys().map(http::HeaderName::as_str).collect();
    assert_eq!(left, ["host", "cookie"]);
}

#[test]
fn only_a_plain_get_may_change_the_protocol() {
    let websocket = "GET /ws HTTP/1.1\nhost: a\nconnection: keep-alive, Upgrade\nupgrade: websocket";
    assert_eq!(request(websocket).unwrap().upgrade(), Some("websocket"));
    for (name, fields) in [
        ("unasked", "upgrade: websocket"),
        ("another protocol", "connection: upgrade, http2-settings\nupgrade: h2c\nhttp2-settings: AAMAAABk"),
        ("a list", "connection: upgrade\nupgrade: websocket, h2c"),
        ("twice", "connection: upgrade\nupgrade: websocket\nupgrade: h2c"),
    ] {
        assert_eq!(
            request(&format!("GET /ws HTTP/1.1\nhost: a\n{fields}")).unwrap().upgrade(),
            None,
            "{name}"
        );
    }
    assert_eq!(
        request("POST /ws HTTP/1.1\nhost: a\nconnection: upgrade\nupgrade: websocket").unwrap().upgrade(),
        None
    );
    assert_eq!(request("GET /ws HTTP/1.0\nconnection: upgrade\nupgrade: websocket").unwrap().upgrade(), None);
}

#[test]
fn responses_say_how_they_end() {
    let length = |head: &str| {
        let text = head.replace('\n', "\r\n") + "\r\n\r\n";
        parse_response(text.as_bytes()).map(|head| head.map(|(_, head)| (head.body, head.connection.close)))
    };
    for (head, expected) in [
        ("HTTP/1.1 200 OK\ncontent-length: 5", (BodyLength::Exactly(5), false)),
        ("HTTP/1.1 200\ntransfer-encoding: chunked", (BodyLength::Chunked, false)),
        ("HTTP/1.1 200 ", (BodyLength::UntilClose, false)),
        ("HTTP/1.0 200 OK\ncontent-length: 5", (BodyLength::Exactly(5), true)),
        ("HTTP/1.0 200 OK\ncontent-length: 5\nconnection: keep-alive", (BodyLength::Exactly(5), false)),
        ("HTTP/1.1 304 Not Modified\ncontent-length: 5", (BodyLength::None, false)),
        ("HTTP/1.1 204 No Content\nconnection: close", (BodyLength::None, true)),
    ] {
        assert_eq!(length(head), Ok(Some(expected)), "{head}");
    }
    for head in ["HTTP/1.1 2000 OK", "HTTP/3 200 OK", "200 OK", "HTTP/1.1 200OK"] {
        assert!(length(head).is_err(), "{head}");
    }
    assert!(length("HTTP/1.1 200 OK\ncontent-length: 5\ntransfer-encoding: chunked").is_err());
}

#[test]
fn trailers_carry_no_framing() {
    let (taken, trailers) =
        parse_trailers(b"grpc-status: 0\r\ncontent-length: 3\r\nhost: b\r\n\r\nrest").unwrap().unwrap();
    assert_eq!(taken, 46);
    assert_eq!(trailers.keys().map(http::HeaderName::as_str).collect::<Vec<_>>(), ["grpc-status"]);
    assert!(parse_trailers(b"a: 1\r\n").unwrap().is_none());
}
