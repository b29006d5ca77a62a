//! The `forwarded` field: `for="10.0.0.1:1234";host=web.shop.svc.cluster.local`.

use std::net::SocketAddr;

/// Octets of a host name (RFC 1035 §2.3.4).
const MAX_HOST: usize = 253;

/// The value for a client at `source` that asked for the service `service_host`, if for any. A host
/// name that would need quotes is left out.
pub fn forwarded(source: SocketAddr, service_host: Option<&str>) -> String {
    match service_host.filter(|host| is_host(host)) {
        Some(host) => format!("for=\"{source}\";host={host}"),
        None => format!("for=\"{source}\""),
    }
}

/// The host of a `forwarded` value. It is the client's word: good for telemetry, not for decisions.
pub fn parse_forwarded_host(value: &str) -> Option<&str> {
    value.split([';', ',']).find_map(|pair| {
        let (name, host) = pair.split_once('=')?;
        let host = host.trim();
        let host = host.strip_prefix('"').and_then(|host| host.strip_suffix('"')).unwrap_or(host);
        (name.trim().eq_ignore_ascii_case("host") && is_host(host)).then_some(host)
    })
}

fn is_host(text: &str) -> bool {
    // Wildcard services are named `*.example.com`.
    let allowed = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'.' | b'-' | b'_' | b'*');
    !text.is_empty() && text.len() <= MAX_HOST && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_value_is_written_as_istio_writes_it() {
        for (source, host, value) in [
            ("10.0.0.1:1234", Some("web.shop.svc"), "for=\"10.0.0.1:1234\";host=web.shop.svc"),
            ("[fd00::1]:80", Some("*.example.com"), "for=\"[fd00::1]:80\";host=*.example.com"),
            ("10.0.0.1:1234", None, "for=\"10.0.0.1:1234\""),
            ("10.0.0.1:1234", Some("a;b"), "for=\"10.0.0.1:1234\""),
            ("10.0.0.1:1234", Some(""), "for=\"10.0.0.1:1234\""),
        ] {
            assert_eq!(forwarded(source.parse().unwrap(), host), value);
        }
    }

    #[test]
    fn the_host_is_found_among_the_parameters() {
        let long = format!("host={}", "a".repeat(MAX_HOST + 1));
        for (value, host) in [
            ("for=\"10.0.0.1:1234\";host=web", Some("web")),
            ("host=web", Some("web")),
            ("for=10.0.0.1; Host=\"web\" ;proto=http", Some("web")),
            ("for=a, for=b;host=web", Some("web")),
            ("for=\"10.0.0.1:1234\"", None),
            ("hostess=web", None),
            ("host=", None),
            ("host=\"web", None),
            ("host=wéb", None),
            (&long, None),
            ("", None),
        ] {
            assert_eq!(parse_forwarded_host(value), host, "{value:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            ip: std::net::IpAddr,
            port: u16,
            host in prop::option::of("[a-z][a-z0-9-]{0,20}(\\.[a-z]{1,10}){0,4}"),
        ) {
            let value = forwarded(SocketAddr::new(ip, port), host.as_deref());
            prop_assert_eq!(parse_forwarded_host(&value), host.as_deref());
        }

        #[test]
        fn no_value_panics(value in ".{0,80}") {
            let _host = parse_forwarded_host(&value);
        }
    }
}
