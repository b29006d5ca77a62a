//! An application that answers with what reached it, and a client that keeps a connection to it: by the two is
//! seen what became of a request on its way.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, Version};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1 as client1, http2 as client2};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::{Deserialize, Serialize};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use crate::pod::Pod;

/// Where it is asked over HTTP/1.1.
pub const HTTP: u16 = 8080;

/// Where it is asked over HTTP/2, gRPC among it.
pub const HTTP2: u16 = 7070;

/// The call that a client of gRPC makes if it names none.
pub const CALL: &str = "/test.Echo/Tell";

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which HTTP a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

/// What reached the application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// The name of the pod that was reached.
    pub pod: String,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub protocol: String,
    /// The method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The authority.
    pub host: String,
    /// Every header line in order, names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Reached {
    /// The values of a header, joined as a list.
    pub fn header(&self, name: &str) -> Option<String> {
        let is_it = |(other, _): &&(String, String)| other.eq_ignore_ascii_case(name);
        let values: Vec<&str> = self.headers.iter().filter(is_it).map(|(_, value)| value.as_str()).collect();
        (!values.is_empty()).then(|| values.join(","))
    }
}

/// Serves a pod until the scenario ends, on [`HTTP`] and [`HTTP2`]. A request with the query `delay=<milliseconds>`
/// is answered after that time.
///
/// # Errors
/// When a port is taken.
pub fn serve(pod: &Pod) -> Result<()> {
    let name: Arc<str> = pod.object().name.into();
    let (first, second) = (pod.listen(HTTP)?, pod.listen(HTTP2)?);
    let runtime = Builder::new_current_thread().enable_all().build()?;
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::join!(accept(first, Speaks::Http1, &name), accept(second, Speaks::Http2, &name))
        })
    });
    Ok(())
}

async fn accept(listener: TcpListener, speaks: Speaks, name: &Arc<str>) {
    let listening = listener.set_nonblocking(true).and_then(|()| tokio::net::TcpListener::from_std(listener));
    let Ok(listener) = listening else { return };
    while let Ok((stream, _)) = listener.accept().await {
        // An answer of HTTP/2 is several writes, of which none is to wait for the far kernel's leave.
        let _ = stream.set_nodelay(true);
        // What is cut ends its own connection; the scenario judges the other end.
        let name = Arc::clone(name);
        let service = service_fn(move |request| answer(Arc::clone(&name), request));
        let io = TokioIo::new(stream);
        match speaks {
            Speaks::Http1 => {
                tokio::spawn(http1::Builder::new().serve_connection(io, service));
            }
            Speaks::Http2 => {
                tokio::spawn(http2::Builder::new(TokioExecutor::new()).serve_connection(io, service));
            }
        }
    }
}

type Body = BoxBody<Bytes, Infallible>;

async fn answer(name: Arc<str>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    // An answer before the end of a request resets its stream, and HTTP/2 servers end a connection with many resets.
    let _ = body.collect().await;
    if let Some(delay) = delay(&head) {
        let _ = timeout(delay, std::future::pending::<()>()).await;
    }
    let text = serde_json::to_string(&reached(&name, &head)).unwrap_or_default();
    let is_call = |content: &HeaderValue| content.as_bytes().starts_with(b"application/grpc");
    let (content, body) = if head.headers.get(header::CONTENT_TYPE).is_some_and(is_call) {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        let message = Full::new(message(text.as_bytes()));
        let body = message.with_trailers(std::future::ready(Some(Ok(trailers))));
        ("application/grpc", body.boxed())
    } else {
        ("application/json", Full::new(Bytes::from(text)).boxed())
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content));
    Ok(response)
}

fn delay(head: &Parts) -> Option<Duration> {
    let value = head.uri.query()?.split('&').find_map(|pair| pair.strip_prefix("delay="))?;
    Some(Duration::from_millis(value.parse().ok()?))
}

fn reached(name: &str, head: &Parts) -> Reached {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let host = head.uri.authority().map(|authority| authority.as_str().to_owned());
    Reached {
        pod: name.to_owned(),
        protocol: format!("{:?}", head.version),
        method: head.method.to_string(),
        path: head.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        host: host.or_else(|| head.headers.get(header::HOST).map(text)).unwrap_or_default(),
        headers: head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
    }
}

/// Octets before a message of gRPC: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// gRPC over HTTP/2, Length-Prefixed-Message: not compressed.
fn message(content: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(PREFIX + content.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(content.len()).unwrap_or(u32::MAX));
    framed.put_slice(content);
    framed.freeze()
}

/// A request.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// The authority.
    pub host: String,
    /// Headers.
    pub headers: Vec<(String, String)>,
}

impl Asked {
    /// `GET <path>` of a host.
    pub fn get(host: &str, path: &str) -> Self {
        Self { method: Method::GET, path: path.to_owned(), host: host.to_owned(), headers: Vec::new() }
    }
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// That of gRPC, from the head or the trailers.
    pub grpc_status: Option<u16>,
    /// Headers.
    pub headers: HeaderMap,
    /// The body, without the frame that gRPC puts around it.
    pub body: String,
}

impl Answer {
    /// What reached the application.
    ///
    /// # Errors
    /// When the answer is of somebody else.
    pub fn reached(&self) -> Result<Reached> {
        ensure!(self.status == 200, "status {}: {:?}", self.status, self.body);
        serde_json::from_str(&self.body).with_context(|| format!("the application did not answer: {self:?}"))
    }
}

/// A connection that stays open, with one request at a time.
#[derive(Debug)]
pub struct Session {
    runtime: Runtime,
    sender: Sender,
}

#[derive(Debug)]
enum Sender {
    Http1(client1::SendRequest<Full<Bytes>>),
    Http2(client2::SendRequest<Full<Bytes>>),
}

impl Session {
    /// Opens one from a pod.
    ///
    /// # Errors
    /// When the far end does not accept.
    pub fn open(from: &Pod, to: SocketAddr, speaks: Speaks) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let stream = from.connect(to)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let sender = runtime.block_on(async {
            let io = TokioIo::new(tokio::net::TcpStream::from_std(stream)?);
            Ok::<_, anyhow::Error>(match speaks {
                Speaks::Http1 => {
                    let (sender, connection) = client1::handshake(io).await?;
                    tokio::spawn(connection);
                    Sender::Http1(sender)
                }
                Speaks::Http2 => {
                    let (sender, connection) = client2::handshake(TokioExecutor::new(), io).await?;
                    tokio::spawn(connection);
                    Sender::Http2(sender)
                }
            })
        })?;
        Ok(Self { runtime, sender })
    }

    /// Asks over HTTP.
    ///
    /// # Errors
    /// When no answer comes.
    pub fn ask(&mut self, asked: &Asked) -> Result<Answer> {
        let answer = self.send(asked, Bytes::new());
        answer.with_context(|| format!("{} {} of {}", asked.method, asked.path, asked.host))
    }

    /// Makes a call of gRPC with an empty message. `asked.method` is not looked at.
    ///
    /// # Errors
    /// When no answer comes.
    pub fn call(&mut self, asked: &Asked) -> Result<Answer> {
        let mut asked = Asked { method: Method::POST, ..asked.clone() };
        for (name, value) in [("content-type", "application/grpc"), ("te", "trailers")] {
            asked.headers.push((name.to_owned(), value.to_owned()));
        }
        self.send(&asked, message(&[])).with_context(|| format!("call {}", asked.path))
    }

    fn send(&mut self, asked: &Asked, body: Bytes) -> Result<Answer> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = asked.method.clone();
        for (name, value) in &asked.headers {
            let name: http::HeaderName = name.parse().with_context(|| name.clone())?;
            request.headers_mut().append(name, value.parse().with_context(|| value.clone())?);
        }
        let is_http1 = matches!(self.sender, Sender::Http1(_));
        if is_http1 {
            *request.uri_mut() = asked.path.parse()?;
            request.headers_mut().insert(header::HOST, asked.host.parse()?);
        } else {
            *request.uri_mut() = format!("http://{}{}", asked.host, asked.path).parse()?;
            *request.version_mut() = Version::HTTP_2;
        }
        let sender = &mut self.sender;
        let exchange = async {
            let response = match sender {
                Sender::Http1(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await?
                }
                Sender::Http2(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await?
                }
            };
            read(response).await
        };
        // Made inside: a timeout belongs to a runtime.
        let answered = self.runtime.block_on(async { timeout(PATIENCE, exchange).await });
        answered.map_err(|_| anyhow!("no answer within {PATIENCE:?}"))?
    }
}

async fn read(response: Response<Incoming>) -> Result<Answer> {
    let (head, body) = response.into_parts();
    let whole = body.collect().await.context("the answer is cut")?;
    let of =
        |headers: &HeaderMap| headers.get("grpc-status").and_then(|value| value.to_str().ok()?.parse().ok());
    let grpc_status = whole.trailers().and_then(of).or_else(|| of(&head.headers));
    let is_call = grpc_status.is_some();
    let octets = whole.to_bytes();
    let content = if is_call { octets.get(PREFIX..).unwrap_or_default() } else { &octets };
    let body = String::from_utf8_lossy(content).into_owned();
    Ok(Answer { status: head.status.as_u16(), grpc_status, headers: head.headers, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_of_grpc_has_its_length_before_it() {
        assert_eq!(&message(b"ab")[..], b"\0\0\0\0\x02ab");
    }

    #[test]
    fn headers_of_one_name_are_a_list() {
        let line = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let reached = Reached {
            pod: "a".into(),
            protocol: "HTTP/1.1".into(),
            method: "GET".into(),
            path: "/".into(),
            host: "a".into(),
            headers: vec![line("x-a", "1"), line("x-b", "2"), line("x-a", "3")],
        };
        assert_eq!(reached.header("X-A").as_deref(), Some("1,3"));
        assert_eq!(reached.header("x-c"), None);
        let answer = Answer {
            status: 200,
            grpc_status: None,
            headers: HeaderMap::new(),
            body: serde_json::to_string(&reached).unwrap(),
        };
        assert_eq!(answer.reached().unwrap(), reached);
    }
}
