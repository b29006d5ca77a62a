//! Follows control: what it sends is in force as one snapshot, from the first full answer on. Until then what an
//! earlier run was sent holds, if that was kept; the two are never merged.

use std::convert::Infallible;
use std::time::SystemTime;

use ambit_mesh::http::{Myself, WaypointSnapshot, WaypointState};
use ambit_runtime::readiness::Ready;
use ambit_xds::client::{Batch, Client};
use ambit_xds::last_good::{Keeper, LastGood};
use tokio::sync::mpsc;
use tracing::info;

use crate::state::SnapshotWriter;

/// The writer of the snapshots.
pub struct Configuration {
    myself: Myself,
    received: WaypointState,
    writer: SnapshotWriter,
    ready: Ready,
    /// What is in force came from control.
    in_force: bool,
    keeper: Option<Keeper<WaypointSnapshot>>,
}

impl Configuration {
    /// Of a waypoint that has been told nothing. `ready` is told of the first snapshot, and `keeper`, if there is
    /// one, is given each that control sends.
    pub fn new(
        myself: Myself,
        writer: SnapshotWriter,
        ready: Ready,
        keeper: Option<Keeper<WaypointSnapshot>>,
    ) -> Self {
        let received = WaypointState::new(myself.clone());
        Self { myself, received, writer, ready, in_force: false, keeper }
    }

    /// Puts in force what an earlier run left, if that is any good.
    pub fn take_up(&mut self, last_good: &LastGood, now: SystemTime) {
        if let Some(changes) = last_good.take_up(now) {
            let mut state = WaypointState::new(self.myself.clone());
            state.apply(changes);
            self.writer.publish(state.snapshot());
            self.ready.ready();
        }
    }

    /// Follows control until dropped. While control is away, what it last sent stays in force.
    pub async fn follow(mut self, client: Client) -> Infallible {
        // Everything is subscribed to: there is no demand.
        let (_, no_demand) = mpsc::channel(1);
        client.run(no_demand, |batch| self.apply(batch)).await
    }

    /// Takes what one response brought.
    pub fn apply(&mut self, batch: Batch) {
        self.received.apply(batch.changes);
        if !batch.synced {
            return;
        }
        let snapshot = self.received.snapshot();
        self.writer.publish(snapshot.clone());
        if let Some(keeper) = &self.keeper {
            keeper.keep(snapshot);
        }
        if !self.in_force {
            self.in_force = true;
            self.writer.forget_replaced();
            self.ready.ready();
            info!("serving by the configuration from control");
        }
    }
}
