//! The least of an HTTP client: a GET for what the programs publish about themselves.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::namespace::Namespace;

/// Fetches `http://127.0.0.1:<port><path>` from inside `namespace`.
///
/// # Errors
/// When nobody answers, or not with status 200.
pub fn get(namespace: &Namespace, port: u16, path: &str) -> Result<String> {
    let stream = namespace.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    ask(stream, path).with_context(|| format!("GET :{port}{path} in {}", namespace.name()))
}

/// Fetches `http://<address><path>` from where this process is.
///
/// # Errors
/// When nobody answers, or not with status 200.
pub fn get_at(address: SocketAddr, path: &str) -> Result<String> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    ask(stream, path).with_context(|| format!("GET {address}{path}"))
}

const PATIENCE: Duration = Duration::from_secs(10);

fn ask(mut stream: TcpStream, path: &str) -> Result<String> {
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    body(&String::from_utf8_lossy(&answer))
}

fn body(answer: &str) -> Result<String> {
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer has no end of headers")?;
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        bail!("{status}: {body}");
    }
    if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        unchunk(body)
    } else {
        Ok(body.to_owned())
    }
}

/// RFC 9112 §7.1, without extensions and trailers.
fn unchunk(mut rest: &str) -> Result<String> {
    let mut body = String::new();
    loop {
        let (size, after) = rest.split_once("\r\n").context("a chunk has no size")?;
        let size = usize::from_str_radix(size.trim(), 16).with_context(|| format!("chunk size {size:?}"))?;
        if size == 0 {
            return Ok(body);
        }
        body.push_str(after.get(..size).context("a chunk is cut off")?);
        rest = after.get(size..).and_then(|rest| rest.strip_prefix("\r\n")).context("a chunk has no end")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_read_in_both_framings() {
        assert_eq!(body("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").unwrap(), "hi");
        let chunked =
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhi \r\n5\r\nthere\r\n0\r\n\r\n";
        assert_eq!(body(chunked).unwrap(), "hi there");
        assert!(body("HTTP/1.1 500 No\r\n\r\nwaiting for xds").is_err());
    }
}
