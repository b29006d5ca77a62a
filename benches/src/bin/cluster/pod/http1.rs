//! As much of HTTP/1.1 as both ends here need: heads, and bodies of a stated length.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::outcome::Failure;

/// A head may not be longer.
const HEAD_LIMIT: usize = 1 << 14;

/// The head of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    /// Behind the question mark, as it stands.
    pub(super) query: String,
    /// Whether the client wants to use the connection again.
    pub(super) keeps: bool,
}

impl Request {
    /// A parameter of the query. Values here need no escapes.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.query
            .split('&')
            .find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name))
            .map(|p| p.1)
    }
}

/// The next request on a connection, without its body; none when the client has closed it.
pub(super) async fn request(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
) -> io::Result<Option<Request>> {
    let Some(head) = head(stream, buffer).await? else { return Ok(None) };
    let request = parse_request(&head).ok_or(io::ErrorKind::InvalidData)?;
    let length = content_length(&head).unwrap_or(0);
    read_body(stream, buffer, length).await?;
    Ok(Some(request))
}

/// Writes an answer.
pub(super) async fn respond(
    stream: &mut (impl AsyncWrite + Unpin),
    status: &str,
    body: &str,
    keeps: bool,
) -> io::Result<()> {
    let connection = if keeps { "keep-alive" } else { "close" };
    let length = body.len();
    let text = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\nconnection: {connection}\r\n\r\n{body}"
    );
    stream.write_all(text.as_bytes()).await
}

/// An answer as a client sees it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) body: String,
    /// Whether the connection may carry another request.
    pub(super) keeps: bool,
}

/// Asks for `/` and reads the answer.
pub(super) async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
    keeps: bool,
) -> Result<Answer, Failure> {
    let connection = if keeps { "keep-alive" } else { "close" };
    let text = format!("GET / HTTP/1.1\r\nhost: bench\r\nconnection: {connection}\r\n\r\n");
    stream.write_all(text.as_bytes()).await.map_err(|error| classify(&error))?;
    let head = head(stream, buffer).await.map_err(|error| classify(&error))?.ok_or(Failure::Closed)?;
    if !head.starts_with("HTTP/1.1 200 ") {
        return Err(Failure::WrongAnswer);
    }
    let length = content_length(&head).ok_or(Failure::WrongAnswer)?;
    let body = read_body(stream, buffer, length).await.map_err(|error| classify(&error))?;
    let body = String::from_utf8(body).map_err(|_| Failure::WrongAnswer)?;
    let keeps = keeps && field(&head, "connection").is_none_or(|value| value != "close");
    Ok(Answer { body, keeps })
}

/// What an error of a socket means to the one who sent a request.
pub(super) fn classify(error: &io::Error) -> Failure {
    use io::ErrorKind as Kind;
    #[expect(clippy::wildcard_enum_match_arm, reason = "the standard library's list is open")]
    match error.kind() {
        Kind::ConnectionRefused => Failure::Refused,
        Kind::ConnectionReset | Kind::BrokenPipe | Kind::ConnectionAborted => Failure::Reset,
        Kind::UnexpectedEof => Failure::Closed,
        Kind::TimedOut => Failure::TimedOut,
        Kind::HostUnreachable | Kind::NetworkUnreachable => Failure::Unreachable,
        Kind::InvalidData => Failure::WrongAnswer,
        _ => Failure::Other,
    }
}

/// Up to the empty line; what came behind it stays in the buffer.
async fn head(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> io::Result<Option<String>> {
    loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            let head: Vec<u8> = buffer.drain(..end + 4).collect();
            return String::from_utf8(head).map(Some).map_err(|_| io::ErrorKind::InvalidData.into());
        }
        if buffer.len() > HEAD_LIMIT {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if stream.read_buf(buffer).await? == 0 {
            let is_clean = buffer.is_empty();
            return if is_clean { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
    }
}

async fn read_body(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
    length: usize,
) -> io::Result<Vec<u8>> {
    if length > HEAD_LIMIT {
        return Err(io::ErrorKind::InvalidData.into());
    }
    while buffer.len() < length {
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(buffer.drain(..length).collect())
}

fn parse_request(head: &str) -> Option<Request> {
    let mut words = head.lines().next()?.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let keeps = version == "HTTP/1.1" && field(head, "connection").is_none_or(|value| value != "close");
    Some(Request { method: method.to_owned(), path: path.to_owned(), query: query.to_owned(), keeps })
}

fn content_length(head: &str) -> Option<usize> {
    field(head, "content-length")?.parse().ok()
}

/// A header field's value, in lower case.
fn field(head: &str, name: &str) -> Option<String> {
    let line = |line: &str| {
        let (key, value) = line.split_once(':')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim().to_ascii_lowercase())
    };
    head.lines().skip(1).find_map(line)
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn both_ends_understand_each_other_and_keep_the_connection() {
        block_on(async {
            let (mut client, mut server) = duplex(1 << 12);
            let serving = async {
                let mut buffer = Vec::new();
                let mut served = 0;
                while let Some(request) = request(&mut server, &mut buffer).await.unwrap() {
                    assert_eq!((request.method.as_str(), request.path.as_str()), ("GET", "/"));
                    respond(&mut server, "200 OK", "pod-7", request.keeps).await.unwrap();
                    served += 1;
                }
                served
            };
            let asking = async {
                let mut buffer = Vec::new();
                for keeps in [true, false] {
                    let answer = ask(&mut client, &mut buffer, keeps).await;
                    assert_eq!(answer, Ok(Answer { body: "pod-7".into(), keeps }));
                }
                drop(client);
            };
            assert_eq!(tokio::join!(serving, asking).0, 2);
        });
    }

    #[test]
    fn a_short_answer_and_another_status_are_failures() {
        for (bytes, failure) in [
            ("", Failure::Closed),
            ("HTTP/1.1 200 OK\r\n", Failure::Closed),
            ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort", Failure::Closed),
            ("HTTP/1.1 503 Gone\r\ncontent-length: 0\r\n\r\n", Failure::WrongAnswer),
        ] {
            block_on(async {
                let (mut client, mut server) = duplex(1 << 12);
                server.write_all(bytes.as_bytes()).await.unwrap();
                server.shutdown().await.unwrap();
                assert_eq!(ask(&mut client, &mut Vec::new(), true).await, Err(failure), "{bytes}");
            });
        }
    }

    #[test]
    fn a_request_has_its_parameters() {
        let request = parse_request("POST /probe?target=1.2.3.4:80&want=answer HTTP/1.1\r\n\r\n").unwrap();
        assert_eq!(request.path, "/probe");
        assert_eq!(request.parameter("target"), Some("1.2.3.4:80"));
        assert_eq!(request.parameter("want"), Some("answer"));
        assert_eq!(request.parameter("every"), None);
        assert!(request.keeps);
    }
}
