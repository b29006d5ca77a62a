use super::*;

fn collected(fields: &[(&str, &str)]) -> Fields {
    let mut collected = Fields::new(1 << 16);
    fields.iter().for_each(|(name, value)| collected.push(name.as_bytes(), value.as_bytes()));
    collected
}

const CONNECT: [(&str, &str); 2] = [(":method", "CONNECT"), (":authority", "10.0.0.1:80")];
const GET: [(&str, &str); 3] = [(":method", "GET"), (":scheme", "https"), (":path", "/")];

#[test]
fn a_connect_is_a_method_and_an_authority() {
    let head =
        collected(&[&CONNECT[..], &[("baggage", "a=1"), ("baggage", "b=2")]].concat()).request().unwrap();
    assert!(head.is_connect());
    assert_eq!((head.method(), head.authority()), ("CONNECT", "10.0.0.1:80"));
    let baggage: Vec<_> = head.headers().all("baggage").collect();
    assert_eq!(baggage, [b"a=1", b"b=2"]);
    assert_eq!(head.headers().text("forwarded"), None);
}

#[test]
fn other_methods_are_valid_requests_but_no_connect() {
    let head = collected(&GET).request().unwrap();
    assert!(!head.is_connect());
    assert_eq!(head.authority(), "");
    assert!(!collected(&[&GET[1..], &[(":method", "connect")]].concat()).request().unwrap().is_connect());
}

#[test]
fn malformed_requests_are_refused() {
    let connect = |more: &[(&'static str, &'static str)]| [&CONNECT[..], more].concat();
    let cases = [
        ("no method", vec![(":scheme", "https"), (":path", "/")]),
        ("an empty method", vec![(":method", ""), (":scheme", "https"), (":path", "/")]),
        ("a CONNECT with a scheme", connect(&[(":scheme", "https")])),
        ("a CONNECT with a path", connect(&[(":path", "/")])),
        ("an extended CONNECT", connect(&[(":protocol", "websocket"), (":scheme", "https"), (":path", "/")])),
        ("a CONNECT to nowhere", vec![(":method", "CONNECT")]),
        ("a CONNECT to an empty authority", vec![(":method", "CONNECT"), (":authority", "")]),
        ("an authority with a blank", vec![(":method", "CONNECT"), (":authority", "a b")]),
        ("an authority beyond ASCII", vec![(":method", "CONNECT"), (":authority", "ä:80")]),
        ("a GET without a path", GET[..2].to_vec()),
        ("a GET with an empty path", vec![(":method", "GET"), (":scheme", "https"), (":path", "")]),
        ("a status", connect(&[(":status", "200")])),
        ("an unknown pseudo-header field", connect(&[(":target", "x")])),
        ("a repeated pseudo-header field", connect(&[(":authority", "10.0.0.1:80")])),
        ("a pseudo-header field behind another", vec![CONNECT[0], ("a", "b"), CONNECT[1]]),
        ("an upper-case name", connect(&[("Baggage", "a=1")])),
        ("an empty name", connect(&[("", "a")])),
        ("a name with a colon", connect(&[("a:b", "c")])),
        ("a name with a blank", connect(&[("a b", "c")])),
        ("a name beyond ASCII", connect(&[("ä", "c")])),
        ("a value with a line feed", connect(&[("a", "b\nc: d")])),
        ("a value with a carriage return", connect(&[("a", "b\r")])),
        ("a value with NUL", connect(&[("a", "b\0")])),
        ("a value that begins with a blank", connect(&[("a", " b")])),
        ("a value that ends with a tab", connect(&[("a", "b\t")])),
        ("connection", connect(&[("connection", "close")])),
        ("transfer-encoding", connect(&[("transfer-encoding", "chunked")])),
        ("te", connect(&[("te", "gzip")])),
    ];
    for (what, fields) in cases {
        assert!(collected(&fields).request().is_err(), "{what}");
    }
    assert!(collected(&connect(&[("te", "trailers")])).request().is_ok());
}

#[test]
fn responses_are_a_status_and_no_more() {
    let status =
        |text: &str| collected(&[(":status", text), ("a", "b")]).response().map(|(status, _)| status).ok();
    let cases = [
        ("200", Some(200)),
        ("100", Some(100)),
        ("999", Some(999)),
        ("101", None),
        ("99", None),
        ("099", None),
    ];
    for (text, expected) in
        cases.into_iter().chain([("+99", None), ("2000", None), ("", None), ("2x0", None)])
    {
        assert_eq!(status(text), expected, "{text:?}");
    }
    assert!(collected(&[("a", "b")]).response().is_err());
    assert!(collected(&[(":status", "200"), (":method", "GET")]).response().is_err());
}

#[test]
fn what_exceeds_the_limit_is_counted_and_dropped() {
    let mut fields = Fields::new(100);
    for _ in 0..10 {
        fields.push(b"name", b"value");
    }
    assert_eq!(fields.size(), 10 * (4 + 5 + 32));
    assert_eq!(fields.headers.len(), 2);
}

#[test]
fn values_beyond_ascii_are_no_text() {
    let mut fields = collected(&CONNECT);
    fields.push("forwarded".as_bytes(), "host=ä".as_bytes());
    let head = fields.request().unwrap();
    assert_eq!(head.headers().text("forwarded"), None);
    assert_eq!(head.headers().all("forwarded").next(), Some("host=ä".as_bytes()));
}
