//! One connection of HTTP/2 to an endpoint, and its streams.
//!
//! `h2` alone: pingora's session of a client has no place for what comes before an answer (1xx), and does
//! not say whether an endpoint takes RFC 8441.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use ambit_hbone::tunnel::Tunnel;
use bytes::Bytes;
use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use h2::{Ping, PingPong, SendStream};
use http::Request;
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use super::{DialError, Lease, Session};
use crate::frames::{PeerRole, Progress};
use crate::head::MAX_HEAD;
use crate::wire::Wire;

/// A connection. Its driver is a task of its worker.
pub(super) struct Multiplexed {
    requests: SendRequest<Bytes>,
    tunnel: Option<Tunnel>,
    local: Option<SocketAddr>,
    progress: Progress,
    shared: Rc<State>,
}

/// What a connection, its streams and its driver know of each other.
#[derive(Default)]
struct State {
    streams: Cell<usize>,
    /// When the last stream began or ended.
    used: Cell<Option<Instant>>,
    is_closed: Cell<bool>,
    /// It takes no new streams: the endpoint has said GOAWAY.
    is_leaving: Cell<bool>,
    /// The endpoint has answered a PING, so that its SETTINGS are known.
    is_settled: Cell<bool>,
    changed: Notify,
}

impl Multiplexed {
    /// Speaks HTTP/2 on a connection. What the endpoint says to it is not waited for.
    pub(super) async fn begin(mut wire: Wire) -> Result<Self, DialError> {
        let progress = wire.watch_frames(PeerRole::Server);
        let (tunnel, local) = (wire.tunnel(), wire.local_addr());
        let failed = |error: h2::Error| DialError::Http2(error.to_string());
        let (requests, mut connection) = Builder::new()
            .enable_push(false)
            .initial_max_send_streams(MAX_STREAMS)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(MAX_FRAME)
            .max_header_list_size(MAX_HEAD as u32)
            .handshake(wire)
            .await
            .map_err(failed)?;
        let shared = Rc::<State>::default();
        let pings = connection.ping_pong();
        spawn_local(drive(connection, pings, Rc::clone(&shared)));
        Ok(Self { requests, tunnel, local, progress, shared })
    }

    /// Whether another stream may be opened, and who is at the other end stays.
    pub(super) fn is_usable(&self) -> bool {
        let is_over = self.shared.is_closed.get() || self.shared.is_leaving.get() || self.progress.is_worn();
        !is_over && !self.tunnel.as_ref().is_some_and(Tunnel::is_leaving)
    }

    /// A lease of one of its streams.
    pub(super) fn lease(&self, stream: Http2Stream, reused: bool) -> Lease {
        let session = Session::Http2(stream);
        Lease { session, reused, tunnel: self.tunnel.clone(), local: self.local }
    }

    /// Whether it has carried nothing for so long.
    pub(super) fn is_idle(&self, limit: Duration) -> bool {
        let quiet = self.shared.used.get().is_none_or(|used| used.elapsed() >= limit);
        self.shared.streams.get() == 0 && quiet
    }

    /// A stream, if one more may be opened now; `None` also once the endpoint has said GOAWAY.
    pub(super) async fn open(&self) -> Option<Http2Stream> {
        let streams = self.shared.streams.get();
        if streams >= MAX_STREAMS || streams >= self.requests.current_max_send_streams() {
            return None;
        }
        // Counted before it waits: others ask meanwhile.
        let counted = Counted::of(&self.shared);
        match self.requests.clone().ready().await {
            Ok(requests) => Some(Http2Stream { requests, counted }),
            Err(_) => {
                self.shared.is_leaving.set(true);
                None
            }
        }
    }
}

async fn drive(connection: Connection<Wire, Bytes>, pings: Option<PingPong>, state: Rc<State>) {
    let asking = async {
        let Some(mut pings) = pings else { return std::future::pending().await };
        loop {
            match timeout(PING_TIMEOUT, pings.ping(Ping::opaque())).await {
                Ok(Ok(_)) => {
                    state.is_settled.set(true);
                    state.changed.notify_waiters();
                }
                // The connection says why.
                Ok(Err(_)) => return std::future::pending().await,
                Err(_) => return,
            }
            sleep(PING_INTERVAL).await;
        }
    };
    tokio::select! {
        outcome = connection => debug!(error = outcome.err().map(tracing::field::display), "HTTP/2 to an endpoint ended"),
        () = asking => debug!("an endpoint of HTTP/2 does not answer"),
    }
    state.is_closed.set(true);
    state.changed.notify_waiters();
}

/// A stream that is counted while it lives.
struct Counted(Rc<State>);

impl Counted {
    fn of(state: &Rc<State>) -> Self {
        state.streams.set(state.streams.get() + 1);
        state.used.set(Some(Instant::now()));
        Self(Rc::clone(state))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
        self.0.used.set(Some(Instant::now()));
    }
}

/// One request's turn on a connection. It is to live as long as the answer.
pub struct Http2Stream {
    requests: SendRequest<Bytes>,
    counted: Counted,
}

impl Http2Stream {
    /// Sends a request's head. `ends`: nothing follows it.
    ///
    /// # Errors
    /// When the connection is over, or the head is none.
    pub fn send(
        &mut self,
        request: Request<()>,
        ends: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        self.requests.send_request(request, ends)
    }

    /// Whether the endpoint takes extended CONNECT (RFC 8441). Its SETTINGS are waited for so long.
    pub async fn takes_extended_connect(&self, limit: Duration) -> bool {
        let state = &self.counted.0;
        let settled = async {
            loop {
                let changed = state.changed.notified();
                if state.is_settled.get() || state.is_closed.get() {
                    return;
                }
                changed.await;
            }
        };
        let is_known = timeout(limit, settled).await.is_ok() && !state.is_closed.get();
        is_known && self.requests.is_extended_connect_protocol_enabled()
    }
}

/// Requests at once on one connection, at most; the endpoint may allow fewer.
const MAX_STREAMS: usize = 100;

/// What an endpoint may send ahead of a client that does not read, for one stream; octets.
const STREAM_WINDOW: u32 = 256 * 1024;

/// The same for all streams of a connection: one that stalls must not stall the others.
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;

/// RFC 9113 §4.2 lets it be larger; a record of TLS is not.
const MAX_FRAME: u32 = 16 * 1024;

/// How a silent endpoint is found out.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// How long its answer may take.
const PING_TIMEOUT: Duration = Duration::from_secs(20);
