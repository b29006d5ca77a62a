//! What must hold of every HTTP/1 head that is accepted: another parser reads the same in it.
//!
//! The fuzz target calls this, and so does `waypoint/tests/head_fuzz.rs` in the suite.

use waypoint::head::{MAX_FIELDS, Version, parse_request};

/// A head that is accepted means the same to `httparse`, which takes what most servers take, and the same
/// again when it is written in the form in which it is sent on.
pub fn head(octets: &[u8]) {
    let Ok(Some((taken, head))) = parse_request(octets) else { return };
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut other = httparse::Request::new(&mut fields);
    let status = other.parse(&octets[..taken]).expect("what is accepted here is accepted there");
    assert_eq!(status, httparse::Status::Complete(taken), "both end it at the same octet");
    assert_eq!(other.method, Some(head.method.as_str()));
    let version = match head.version {
        Version::Http10 => 0,
        Version::Http11 => 1,
    };
    assert_eq!(other.version, Some(version));
    let target = other.path.expect("a target");
    assert!(
        target == head.path
            || target.ends_with(&head.path)
            || head.path.starts_with("/?")
            || head.path == "/"
    );
    assert!(head.path.starts_with('/') || head.path == "*");
    assert_eq!(other.headers.len(), head.headers.len());
    for field in other.headers.iter() {
        let value = field.value.trim_ascii();
        let mut ours = head.headers.get_all(field.name).iter();
        assert!(ours.any(|ours| ours.as_bytes() == value), "{}", field.name);
    }
    let hosts = other.headers.iter().filter(|field| field.name.eq_ignore_ascii_case("host"));
    let host = hosts.map(|field| field.value.trim_ascii()).next();
    if let (Some(host), Some(authority)) = (host, &head.authority) {
        assert_eq!(host, authority.as_bytes(), "the host that routes is the host that is sent");
    }

    let mut canonical = format!("{} {} HTTP/1.{version}\r\n", head.method, head.path).into_bytes();
    for (name, value) in &head.headers {
        canonical.extend_from_slice(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    canonical.extend_from_slice(b"\r\n");
    // Without an absolute target HTTP/1.0 may be left without a host.
    let again = parse_request(&canonical).expect("what is sent on is accepted again").expect("and is whole");
    assert_eq!(again.0, canonical.len());
    assert_eq!(again.1.headers, head.headers);
    assert_eq!((&again.1.method, &again.1.path, again.1.body), (&head.method, &head.path, head.body));
}
