//! A client's connection: which protocol it speaks, and its requests one by one.

use std::rc::Rc;
use std::time::Duration;

use ambit_mesh::service::AppProtocol;
use tokio::time::{Instant, timeout};
use tracing::debug;

use crate::detect::{Detected, detect};
use crate::ingress::Caller;
use crate::opaque;
use crate::wire::Wire;
use crate::worker::Worker;

mod http1;
mod http2;

/// Serves one connection to its end.
pub async fn serve(worker: &Rc<Worker>, caller: Rc<Caller>, mut wire: Wire, declared: AppProtocol) {
    let detected = match declared {
        AppProtocol::Tcp | AppProtocol::Tls => Detected::Opaque,
        AppProtocol::Http11 | AppProtocol::Http2 | AppProtocol::Grpc => {
            match look(worker, &caller, &mut wire, worker.shared.config.idle_timeout).await {
                // Whatever it is, it is not what its service says, so that no policy could judge it.
                Detected::Opaque => Detected::Http1,
                detected @ (Detected::Http1 | Detected::Http2 | Detected::Undecided) => detected,
            }
        }
        AppProtocol::Unknown => look(worker, &caller, &mut wire, worker.shared.config.detect_timeout).await,
    };
    match detected {
        Detected::Http1 => http1::serve(worker, &caller, wire).await,
        Detected::Http2 => http2::serve(worker, &caller, wire).await,
        Detected::Opaque => opaque::serve(worker, &caller, wire).await,
        // The end came, or a client of a declared protocol never said anything.
        Detected::Undecided => wire.close().await,
    }
}

/// Looks at the first octets, which are waited for so long. Where none come in time, the server may be
/// the one who speaks first; where the protocol is declared, nobody waits for that.
async fn look(worker: &Worker, caller: &Caller, wire: &mut Wire, first: Duration) -> Detected {
    let config = &worker.shared.config;
    let is_declared = first > config.detect_timeout;
    let silent = if is_declared { Detected::Undecided } else { Detected::Opaque };
    let mut limit = first;
    loop {
        match detect(wire.unread()) {
            Detected::Undecided => {}
            detected @ (Detected::Http1 | Detected::Http2 | Detected::Opaque) => return detected,
        }
        let may_end = is_declared && wire.unread().is_empty();
        let filled = tokio::select! {
            filled = timeout(limit, wire.fill()) => filled,
            () = idle_end(worker, caller), if may_end => return Detected::Undecided,
        };
        match filled {
            Ok(Ok(0)) => return if wire.unread().is_empty() { Detected::Undecided } else { silent },
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                debug!(%error, "lost before the first request");
                return Detected::Undecided;
            }
            Err(_) => return silent,
        }
        // What has begun goes on.
        limit = if is_declared { config.header_timeout } else { config.detect_timeout };
    }
}

/// Until when an idle connection is kept once it is to go.
async fn idle_end(worker: &Worker, caller: &Caller) {
    loop {
        let leaving = caller.until_leaving(worker).await;
        tokio::time::sleep_until(leaving.idle_until).await;
        // What it is for may have come back.
        if caller.leaving(worker).is_some_and(|leaving| leaving.idle_until <= Instant::now()) {
            return;
        }
    }
}
