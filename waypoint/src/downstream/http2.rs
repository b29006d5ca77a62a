//! HTTP/2 from a client: requests at once.
//!
//! The handshake and its bounds are pingora's; streams are taken as `h2` gives them, since pingora's
//! session drops a request's trailers.

use std::rc::Rc;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{Method, StatusCode, Version, header};
use pingora_core::protocols::http::v2::server::{default_h2_options, handshake};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::idle_end;
use crate::exchange::{self, Body, Request, Responder};
use crate::head::{BodyLength, is_authority, strip_hop_by_hop};
use crate::ingress::Caller;
use crate::wire::Wire;
use crate::worker::Worker;

/// Serves streams until the connection ends.
pub(super) async fn serve(worker: &Rc<Worker>, caller: &Rc<Caller>, wire: Wire) {
    let mut options = default_h2_options();
    options
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_streams(MAX_STREAMS)
        .enable_connect_protocol();
    let mut connection = match handshake(Box::new(wire), Some(options)).await {
        Ok(connection) => connection,
        Err(error) => {
            debug!(%error, "no HTTP/2 handshake");
            return;
        }
    };
    let mut exchanges = JoinSet::new();
    let mut is_leaving = false;
    let idle = worker.shared.config.idle_timeout;
    let mut quiet_since = Instant::now();
    loop {
        tokio::select! {
            // Polled first: it also drives the streams that are open.
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    let (worker, caller) = (Rc::clone(worker), Rc::clone(caller));
                    exchanges.spawn_local(async move { stream(&worker, &caller, request, respond).await });
                }
                Some(Err(error)) => {
                    debug!(%error, "HTTP/2 connection failed");
                    return;
                }
                None => return,
            },
            _ = worker.until_leaving(), if !is_leaving => {
                connection.graceful_shutdown();
                is_leaving = true;
            }
            () = idle_end(worker), if is_leaving && exchanges.is_empty() => return,
            _ = exchanges.join_next(), if !exchanges.is_empty() => quiet_since = Instant::now(),
            () = sleep_until(quiet_since + idle), if exchanges.is_empty() => {
                connection.graceful_shutdown();
                quiet_since = Instant::now();
            }
        }
    }
}

async fn stream(
    worker: &Rc<Worker>,
    caller: &Rc<Caller>,
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let (parts, body) = request.into_parts();
    match understood(&parts, &body) {
        Ok(request) => {
            let _end =
                exchange::run(worker, caller, &request, Body::Http2(body), Responder::Http2(respond)).await;
        }
        Err(why) => {
            debug!(why, "request refused");
            let mut response = http::Response::new(());
            *response.status_mut() = StatusCode::BAD_REQUEST;
            // The stream may be gone.
            let _ = respond.send_response(response, true);
        }
    }
}

/// A request as policies and routes see it: one authority, one target.
fn understood(parts: &http::request::Parts, body: &RecvStream) -> Result<Request, &'static str> {
    if parts.version != Version::HTTP_2 {
        return Err("the version is not HTTP/2");
    }
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let host = hosts.next().map(|host| host.to_str().unwrap_or_default());
    if hosts.next().is_some() {
        return Err("Host is repeated");
    }
    let authority = parts.uri.authority().map(http::uri::Authority::as_str);
    // RFC 9113 §8.3.1: they must not differ where both are there.
    let named = match (authority, host) {
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => {
            return Err("Host and :authority differ");
        }
        (Some(named), _) | (None, Some(named)) => named,
        (None, None) => return Err("there is neither :authority nor Host"),
    };
    if !is_authority(named) {
        return Err("the authority is not a host with an optional port");
    }
    let (method, upgrade) = changed_protocol(parts)?;
    let path = parts.uri.path_and_query().ok_or("there is no :path")?.as_str();
    let length = match parts.headers.get(header::CONTENT_LENGTH) {
        // What follows is no body: it is the other protocol.
        _ if body.is_end_stream() || upgrade.is_some() => BodyLength::None,
        Some(length) => {
            let length = length.to_str().ok().and_then(|text| text.parse().ok());
            BodyLength::Exactly(length.ok_or("content-length is malformed")?)
        }
        None => BodyLength::Chunked,
    };
    let wants_trailers = parts.headers.get(header::TE).is_some_and(|te| te == "trailers");
    let mut headers = parts.headers.clone();
    let expects_continue = headers
        .get(header::EXPECT)
        .is_some_and(|expect| expect.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    strip_hop_by_hop(&mut headers, &Default::default());
    headers.remove(header::HOST);
    headers.remove(header::EXPECT);
    join_cookies(&mut headers);
    Ok(Request {
        method,
        path: path.to_owned(),
        authority: named.to_owned(),
        headers,
        protocol: "HTTP/2",
        length,
        upgrade,
        expects_continue,
        wants_trailers,
    })
}

/// RFC 8441: a CONNECT with a protocol is what GET with `Upgrade` is in HTTP/1, and is decided and sent
/// as that. A plain CONNECT is for nobody here.
fn changed_protocol(parts: &http::request::Parts) -> Result<(Method, Option<String>), &'static str> {
    if parts.method != Method::CONNECT {
        return Ok((parts.method.clone(), None));
    }
    match parts.extensions.get::<h2::ext::Protocol>() {
        Some(protocol) if protocol.as_str().eq_ignore_ascii_case("websocket") => {
            Ok((Method::GET, Some("websocket".to_owned())))
        }
        Some(_) => Err("the protocol of a CONNECT is not websocket"),
        None => Err("CONNECT is not served"),
    }
}

/// RFC 9113 §8.2.3: pieces of `cookie` are joined before they go to what is not HTTP/2; policies and
/// routes see them joined, too.
fn join_cookies(headers: &mut http::HeaderMap) {
    if headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let pieces: Vec<&[u8]> =
        headers.get_all(header::COOKIE).iter().map(http::HeaderValue::as_bytes).collect();
    if let Ok(joined) = http::HeaderValue::from_bytes(&pieces.join(&b"; "[..])) {
        headers.insert(header::COOKIE, joined);
    }
}

/// What a client may send ahead of an endpoint that does not read, for one stream; octets.
const STREAM_WINDOW: u32 = 256 * 1024;

/// The same for all streams of a connection.
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;

/// RFC 9113 §4.2 lets it be larger; a record of TLS is not.
const MAX_FRAME: u32 = 16 * 1024;

/// What waits to be sent, for one stream; octets.
const SEND_BUFFER: usize = 256 * 1024;

/// Requests at once on one connection, as Envoy's waypoint allows.
const MAX_STREAMS: u32 = 100;
