//! The name that a client of TLS asks for, by the first octets that it sends (RFC 6066 section 3). Pure.

/// What the first octets say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerName {
    /// More octets must come first.
    Undecided,
    /// This name, or none.
    Said(Option<String>),
    /// It is no TLS.
    NotTls,
}

/// Reads the beginning of a connection.
pub fn server_name(octets: &[u8]) -> ServerName {
    match hello(octets) {
        Ok(hello) => read_hello(&hello).map_or(ServerName::NotTls, ServerName::Said),
        Err(undecided) => undecided,
    }
}

/// The body of the ClientHello, which may lie in several records (RFC 8446 section 5.1).
fn hello(mut octets: &[u8]) -> Result<Vec<u8>, ServerName> {
    let mut handshake = Vec::new();
    loop {
        if let Some((&[kind, a, b, c], body)) = handshake.split_first_chunk() {
            if kind != CLIENT_HELLO {
                return Err(ServerName::NotTls);
            }
            let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            if length > LONGEST {
                return Err(ServerName::NotTls);
            }
            if let Some(body) = body.get(..length) {
                return Ok(body.to_vec());
            }
        }
        match octets {
            [] => return Err(ServerName::Undecided),
            [HANDSHAKE] | [HANDSHAKE, 3] | [HANDSHAKE, 3, _] | [HANDSHAKE, 3, _, _] => {
                return Err(ServerName::Undecided);
            }
            [HANDSHAKE, 3, _, a, b, rest @ ..] => {
                let length = usize::from(*a) << 8 | usize::from(*b);
                if length == 0 || length > LONGEST {
                    return Err(ServerName::NotTls);
                }
                let (part, after) = rest.split_at(length.min(rest.len()));
                handshake.extend_from_slice(part);
                octets = after;
            }
            _ => return Err(ServerName::NotTls),
        }
    }
}

/// `None` where it is malformed.
fn read_hello(body: &[u8]) -> Option<Option<String>> {
    // The version and the random number of the client.
    let mut rest = body.get(2 + 32..)?;
    let _session = vector(&mut rest, 1)?;
    let _cipher_suites = vector(&mut rest, 2)?;
    let _compression = vector(&mut rest, 1)?;
    if rest.is_empty() {
        return Some(None);
    }
    let mut extensions = vector(&mut rest, 2)?;
    while let Some((kind, after)) = extensions.split_first_chunk::<2>() {
        extensions = after;
        let mut content = vector(&mut extensions, 2)?;
        if u16::from_be_bytes(*kind) != SERVER_NAME {
            continue;
        }
        let mut names = vector(&mut content, 2)?;
        while let Some((kind, after)) = names.split_first() {
            names = after;
            let name = vector(&mut names, 2)?;
            if *kind == HOST_NAME {
                let name =
                    std::str::from_utf8(name).ok().filter(|name| name.is_ascii() && !name.is_empty())?;
                return Some(Some(name.to_owned()));
            }
        }
    }
    Some(None)
}

/// A vector whose length stands before it in so many octets.
fn vector<'a>(rest: &mut &'a [u8], octets: usize) -> Option<&'a [u8]> {
    let (length, after) = rest.split_at_checked(octets)?;
    let length = length.iter().fold(0, |length, octet| length << 8 | usize::from(*octet));
    let (content, after) = after.split_at_checked(length)?;
    *rest = after;
    Some(content)
}

/// RFC 8446 section 5.1: ContentType.
const HANDSHAKE: u8 = 22;

/// RFC 8446 section 4: HandshakeType.
const CLIENT_HELLO: u8 = 1;

/// RFC 6066 section 3: the extension, and its only type of name.
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;

/// A hello with keys of post-quantum exchanges has about 2 KiB; what is far longer is none. In octets.
pub const LONGEST: usize = 32 * 1024;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// What a real client sends first.
    fn real(name: &'static str) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name.try_into().unwrap()).unwrap();
        let mut sent = Vec::new();
        client.write_tls(&mut sent).unwrap();
        sent
    }

    /// The same in records of so many octets.
    fn fragmented(octets: &[u8], size: usize) -> Vec<u8> {
        let record = |part: &[u8]| {
            let length = u16::try_from(part.len()).unwrap().to_be_bytes();
            [&[HANDSHAKE, 3, 1], &length[..], part].concat()
        };
        octets[5..].chunks(size).flat_map(record).collect()
    }

    #[test]
    fn a_real_client_is_read_in_whatever_pieces() {
        let sent = real("www.shop.example");
        let expected = ServerName::Said(Some("www.shop.example".to_owned()));
        assert_eq!(server_name(&sent), expected);
        assert_eq!(server_name(&fragmented(&sent, 7)), expected);
        for end in 0..sent.len() {
            assert_eq!(server_name(&sent[..end]), ServerName::Undecided, "{end}");
        }
        // An address is never sent as a name.
        assert_eq!(server_name(&real("10.0.0.1")), ServerName::Said(None));
    }

    #[test]
    fn what_is_no_tls_is_told_at_once() {
        for octets in [
            &b"GET / HTTP/1.1"[..],
            b"\x15\x03\x01\0\x02\x02\x28",
            b"\x16\x02\0",
            b"\x16\x03\x01\0\0",
            b"\x16\x03\x01\0\x04\x02\0\0\0",
            b"\x16\x03\x01\0\x04\x01\xff\xff\xff",
        ] {
            assert_eq!(server_name(octets), ServerName::NotTls, "{}", octets.escape_ascii());
        }
        let mut lying = real("www.shop.example");
        let length = lying.len();
        // The last extension says that it is longer than what there is.
        lying.truncate(length - 1);
        lying[3..5].copy_from_slice(&u16::try_from(length - 6).unwrap().to_be_bytes());
        let hello = u32::try_from(length - 10).unwrap().to_be_bytes();
        lying[6..9].copy_from_slice(&hello[1..]);
        assert_eq!(server_name(&lying), ServerName::NotTls);
    }
}
