//! Connections that are no HTTP: copied both ways, once policy allows them.

use std::io;
use std::rc::Rc;

use ambit_mesh::decide::ResponseFlag;
use ambit_mesh::http::{HttpDenied, NotRouted, NotServed, Reading, UpstreamError, authorize_connection};
use bytes::Bytes;
use tokio::time::timeout;

use crate::h1::Shared;
use crate::ingress::Caller;
use crate::parting::{Question, Serving, Watched};
use crate::record::ConnectionRecord;
use crate::server_name::{LONGEST, ServerName, server_name};
use crate::upstream::{Carrier, Choice, DialError, Key, OnBehalf, Protocol, connect};
use crate::wire::Wire;
use crate::worker::Worker;

/// Why a connection was not carried, or was cut.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no configuration")]
    NoSnapshot,
    #[error(transparent)]
    NotServed(#[from] NotServed),
    #[error(transparent)]
    Denied(#[from] HttpDenied),
    #[error(transparent)]
    NotRouted(#[from] NotRouted),
    #[error("the service has a TLSRoute, and no TLS began within {seconds} s")]
    NoTls { seconds: u64 },
    #[error(transparent)]
    NoEndpoint(#[from] UpstreamError),
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("the client's connection failed: {0}")]
    Downstream(#[source] io::Error),
    #[error("the endpoint's connection failed: {0}")]
    Upstream(#[source] io::Error),
    #[error("nothing was carried for longer than the idle timeout")]
    Idle,
}

impl Failure {
    fn flag(&self) -> ResponseFlag {
        match self {
            Self::Denied(_) => ResponseFlag::Denied,
            Self::NoSnapshot
            | Self::NotServed(_)
            | Self::NotRouted(_)
            | Self::NoTls { .. }
            | Self::NoEndpoint(_)
            | Self::Dial(_) => ResponseFlag::ConnectFailure,
            Self::Downstream(_) | Self::Upstream(_) | Self::Idle => ResponseFlag::None,
        }
    }
}

/// Serves one connection to its end.
pub async fn serve(worker: &Rc<Worker>, caller: &Rc<Caller>, mut wire: Wire) {
    let mut record = ConnectionRecord::new(worker, caller);
    // Before the one that is decided by: no change of policy falls in between.
    let snapshots = worker.shared.snapshots.from_now();
    let serving = snapshots.serving(&caller.authority);
    let until = serving.as_ref().and_then(|serving| serving.as_ref().ok()?.until);
    let mut watched = Watched::new(snapshots, until);
    let established = tokio::select! {
        established = establish(worker, caller, serving, &mut wire, &mut record) => established,
        denied = revoked(worker, caller, &mut watched) => Err(denied),
    };
    match established {
        Ok(upstream) => carry(worker, caller, (wire, upstream), record, watched).await,
        Err(failure) => {
            wire.abort();
            record.fail(failure.flag(), &failure);
        }
    }
}

async fn establish(
    worker: &Rc<Worker>,
    caller: &Caller,
    serving: Option<Result<Serving, NotServed>>,
    downstream: &mut Wire,
    record: &mut ConnectionRecord,
) -> Result<Wire, Failure> {
    let Serving { snapshot, destination, .. } = serving.ok_or(Failure::NoSnapshot)??;
    record.destination(&destination);
    authorize_connection(&snapshot, &destination, &caller.client)?;
    let name = match snapshot.reading(&destination, &caller.client) {
        Reading::ServerName => read_name(worker, downstream).await?,
        Reading::Requests | Reading::Nothing => None,
    };
    record.server_name(name.as_deref());
    let backend = {
        let rng = &mut *worker.rng.borrow_mut();
        snapshot.route_connection(&destination, &caller.client, name.as_deref(), rng)?
    };
    let service = destination.service().map(|service| &*service.name.hostname);
    let mut choice = Choice::new(worker, &snapshot, &backend);
    loop {
        let decision = choice.choose()?;
        record.endpoint(&decision);
        let key = Key {
            carrier: Carrier::of(&decision),
            protocol: Protocol::Opaque,
            // It is of this client alone, so that it can as well say so.
            client: Some(caller.identity.clone()),
        };
        let is_other_there = || choice.is_other_there(&decision);
        let caller = OnBehalf { address: caller.address, service, is_other_there: &is_other_there };
        match connect(worker, &key, &caller).await {
            Ok(wire) => {
                choice.answered(&decision);
                return Ok(wire);
            }
            Err(error) if choice.failed(&decision, &error) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The name that the client's TLS asks for. What was read to learn it is carried all the same.
async fn read_name(worker: &Worker, wire: &mut Wire) -> Result<Option<String>, Failure> {
    let limit = worker.shared.config.header_timeout;
    let reading = async {
        loop {
            match server_name(wire.unread()) {
                ServerName::Said(name) => return Ok(Some(name)),
                ServerName::NotTls => return Ok(None),
                ServerName::Undecided if wire.unread().len() > LONGEST => return Ok(None),
                ServerName::Undecided => {}
            }
            if wire.fill().await.map_err(Failure::Downstream)? == 0 {
                return Ok(None);
            }
        }
    };
    let read: Result<_, Failure> = timeout(limit, reading).await.unwrap_or(Ok(None));
    read?.ok_or(Failure::NoTls { seconds: limit.as_secs() })
}

async fn carry(
    worker: &Rc<Worker>,
    caller: &Caller,
    (downstream, upstream): (Wire, Wire),
    mut record: ConnectionRecord,
    mut watched: Watched,
) {
    record.opened();
    let (downstream, upstream) = (Shared::new(downstream), Shared::new(upstream));
    let idle = worker.shared.config.idle_timeout;
    let both = both_ways(&downstream, &upstream, idle, &record);
    let outcome = tokio::select! {
        outcome = both => outcome.map_err(|cut| match cut {
            Cut::First(error) => Failure::Downstream(error),
            Cut::Second(error) => Failure::Upstream(error),
            Cut::Idle => Failure::Idle,
        }),
        denied = revoked(worker, caller, &mut watched) => Err(denied),
    };
    for side in [downstream, upstream] {
        let Some(wire) = side.into_wire() else { continue };
        if outcome.is_ok() {
            drop(wire);
        } else {
            wire.abort();
        }
    }
    match outcome {
        Ok(()) => record.finish(),
        Err(failure) => record.cut(failure.flag(), &failure),
    }
}

/// Waits until policy no longer allows the connection.
async fn revoked(worker: &Worker, caller: &Caller, watched: &mut Watched) -> Failure {
    loop {
        match watched.next(&caller.authority, worker).await {
            Question::Allowed(snapshot, destination) => {
                if let Err(denied) = authorize_connection(&snapshot, &destination, &caller.client) {
                    return denied.into();
                }
            }
            Question::Over(not_served) => return not_served.into(),
        }
    }
}

/// Why two joined connections came apart.
#[derive(Debug)]
pub enum Cut {
    /// The first failed.
    First(io::Error),
    /// The second failed.
    Second(io::Error),
    /// Both were silent for too long.
    Idle,
}

/// Counts what is carried.
pub trait Meter {
    /// Octets from the first connection to the second.
    fn forth(&self, octets: u64);
    /// Octets back.
    fn back(&self, octets: u64);
    /// Both together.
    fn carried(&self) -> u64;
}

/// Copies both ways until both have ended.
///
/// # Errors
/// When one fails, or neither says anything for `idle` or longer.
pub async fn both_ways(
    first: &Shared,
    second: &Shared,
    idle: std::time::Duration,
    meter: &impl Meter,
) -> Result<(), Cut> {
    let forth = async {
        loop {
            let octets = first.next_octets().await.map_err(Cut::First)?;
            if octets.is_empty() {
                return second.shutdown().await.map_err(Cut::Second);
            }
            pass(second, &octets).await.map_err(Cut::Second)?;
            meter.forth(octets.len() as u64);
        }
    };
    let back = async {
        loop {
            let octets = second.next_octets().await.map_err(Cut::Second)?;
            if octets.is_empty() {
                return first.shutdown().await.map_err(Cut::First);
            }
            pass(first, &octets).await.map_err(Cut::First)?;
            meter.back(octets.len() as u64);
        }
    };
    let joined = async { tokio::try_join!(forth, back).map(|_| ()) };
    tokio::pin!(joined);
    loop {
        let before = meter.carried();
        match timeout(idle, &mut joined).await {
            Ok(outcome) => return outcome,
            Err(_) if meter.carried() == before => return Err(Cut::Idle),
            Err(_) => {}
        }
    }
}

async fn pass(to: &Shared, octets: &Bytes) -> io::Result<()> {
    to.write_all(octets).await
}
