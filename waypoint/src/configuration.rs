//! Follows control: what it sends is in force as one snapshot, from the first full answer on.

use ambit_mesh::http::{Myself, WaypointState};
use ambit_runtime::readiness::Ready;
use ambit_xds::client::{Batch, Client};
use std::convert::Infallible;
use tokio::sync::mpsc;
use tracing::info;

use crate::state::SnapshotWriter;

/// The writer of the snapshots.
pub struct Configuration {
    received: WaypointState,
    writer: SnapshotWriter,
    ready: Ready,
    in_force: bool,
}

impl Configuration {
    /// Of a waypoint that has been told nothing. `ready` is told of the first snapshot.
    pub fn new(myself: Myself, writer: SnapshotWriter, ready: Ready) -> Self {
        Self { received: WaypointState::new(myself), writer, ready, in_force: false }
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
        self.writer.publish(self.received.snapshot());
        if !self.in_force {
            self.in_force = true;
            self.ready.ready();
            info!("serving by the configuration from control");
        }
    }
}
