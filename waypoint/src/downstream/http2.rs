//! HTTP/2 from a client: requests at once.
//!
//! The handshake and its bounds are pingora's; streams are taken as `h2` gives them, since pingora's
//! session drops a request's trailers.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, header};
use pingora_core::protocols::http::v2::server::{default_h2_options, handshake};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep_until};
use tracing::debug;

use super::idle_end;
use crate::exchange::{self, Body, Request, Responder};
use crate::frames::{PeerRole, Progress};
use crate::head::{ConnectionOptions, Http2Head, Refusal, read_http2, strip_hop_by_hop};
use crate::ingress::Caller;
use crate::record::{cut_off, refused_head};
use crate::wire::Wire;
use crate::worker::Worker;

/// Serves streams until the connection ends.
pub(super) async fn serve(worker: &Rc<Worker>, caller: &Rc<Caller>, mut wire: Wire) {
    let mut options = default_h2_options();
    options
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_streams(MAX_STREAMS)
        .enable_connect_protocol();
    let progress = wire.watch_frames(PeerRole::Client);
    let mut connection = match handshake(Box::new(wire), Some(options)).await {
        Ok(connection) => connection,
        Err(error) => {
            debug!(%error, "no HTTP/2 handshake");
            return;
        }
    };
    let mut exchanges = JoinSet::new();
    let mut ending: Option<Instant> = None;
    let (mut is_leaving, mut is_last_said) = (false, false);
    let idle = worker.shared.config.idle_timeout;
    let mut quiet_since = Instant::now();
    let mut looks = interval(worker.shared.config.header_timeout.max(SHORTEST_LOOK));
    let mut mark = progress.mark();
    loop {
        if progress.is_worn() && ending.is_none() {
            ending = Some(end_after(FAREWELL, &progress));
        }
        tokio::select! {
            // Polled first: it also drives the streams that are open.
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    let (worker, caller) = (Rc::clone(worker), Rc::clone(caller));
                    exchanges.spawn_local(async move { stream(&worker, &caller, request, respond).await });
                }
                Some(Err(error)) => {
                    match progress.flood() {
                        Some(flood) => cut_off(caller, &flood),
                        None => debug!(%error, "HTTP/2 connection failed"),
                    }
                    return;
                }
                None => return,
            },
            leaving = caller.until_leaving(worker), if !is_leaving => {
                let left = leaving.idle_until.saturating_duration_since(Instant::now());
                ending.get_or_insert_with(|| end_after(FAREWELL.min(left / 2), &progress));
                is_leaving = true;
            }
            () = until(ending), if !is_last_said => {
                connection.graceful_shutdown();
                is_last_said = true;
            }
            () = idle_end(worker, caller), if is_leaving && exchanges.is_empty() => return,
            _ = exchanges.join_next(), if !exchanges.is_empty() => quiet_since = Instant::now(),
            // A head that has begun ends, or its connection does.
            _ = looks.tick() => {
                if progress.is_stuck_at(mark) {
                    cut_off(caller, &"a head took too long");
                    return;
                }
                mark = progress.mark();
            }
            () = sleep_until(quiet_since + idle), if exchanges.is_empty() && ending.is_none() => {
                ending = Some(end_after(FAREWELL, &progress));
            }
        }
    }
}

/// Says that a connection ends; when its last stream is to be named.
fn end_after(time: Duration, progress: &Progress) -> Instant {
    progress.announce_end();
    Instant::now() + time
}

async fn until(ending: Option<Instant>) {
    match ending {
        Some(ending) => sleep_until(ending).await,
        None => std::future::pending().await,
    }
}

async fn stream(
    worker: &Rc<Worker>,
    caller: &Rc<Caller>,
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let (parts, body) = request.into_parts();
    match read_http2(&parts, body.is_end_stream()) {
        Ok(head) => {
            let request = understood(head, parts.headers);
            let (body, responder) = (Body::Http2(body), Responder::Http2(respond));
            let _end = exchange::run(worker, caller, request, body, responder).await;
        }
        Err(refusal) => {
            refused_head(worker, caller, refusal);
            // The stream may be gone.
            let _ = refuse(&mut respond, refusal);
        }
    }
}

fn refuse(respond: &mut SendResponse<Bytes>, refusal: Refusal) -> Result<(), h2::Error> {
    let mut response = http::Response::new(());
    *response.status_mut() = refusal.status();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    respond.send_response(response, false)?.send_data(Bytes::from(format!("{refusal}\n")), true)
}

/// A request as policies and routes see it.
fn understood(head: Http2Head, mut headers: HeaderMap) -> Request {
    let wants_trailers = headers.get(header::TE).is_some_and(|te| te == "trailers");
    let expects_continue = headers
        .get(header::EXPECT)
        .is_some_and(|expect| expect.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    strip_hop_by_hop(&mut headers, &ConnectionOptions::default());
    headers.remove(header::HOST);
    headers.remove(header::EXPECT);
    join_cookies(&mut headers);
    Request {
        method: head.method,
        path: head.path,
        authority: head.authority,
        headers,
        protocol: "HTTP/2",
        length: head.length,
        upgrade: head.upgrade,
        expects_continue,
        wants_trailers,
    }
}

/// RFC 9113 §8.2.3: pieces of `cookie` are joined before they go to what is not HTTP/2; policies and
/// routes see them joined, too.
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let pieces: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&pieces.join(&b"; "[..])) {
        headers.insert(header::COOKIE, joined);
    }
}

/// What a client has begun before it hears that a connection ends is on its way for so long, at most.
const FAREWELL: Duration = Duration::from_millis(500);

/// An interval of nothing is none.
const SHORTEST_LOOK: Duration = Duration::from_millis(1);

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
