//! Handing the pods of a node over from one agent to the next, so that an upgrade refuses nothing and
//! loses nothing.
//!
//! ```text
//! predecessor                                    successor
//! serving <------------- Hello ----------------- started, with workers
//!         -------------- Answer ---------------> waits for a configuration and for control
//!         <------------- Give ------------------
//! frozen  -------------- Pod, Listeners ... End> opens nothing anew, has the certificates,
//!                                                accepts beside the predecessor
//!         <------------- Serving ---------------
//! leaves  -------------- Released -------------> owns rules, files and sockets
//! ```
//!
//! The listening sockets themselves are passed (SCM_RIGHTS), so that a connection that waits in one is
//! accepted by whoever comes first, and a process that closes its copy closes nothing. Until `Serving`
//! the predecessor is the owner: whatever becomes of the successor, it goes on as before. From then on
//! it takes no connection, touches no rule and no file, and lets its open connections finish; it never
//! takes anything back. While it is frozen it enrols and releases no pod; a successor that keeps it
//! frozen for too long is dropped and has to begin anew.
//!
//! Who is to be captured is not decided here: see [`crate::pods`]. What an agent does that nobody
//! succeeds is in [`crate::ending`].

mod channel;
mod message;
mod predecessors;
mod reception;
mod spread;
mod successor;
mod visit;

use std::path::{Path, PathBuf};

pub use channel::ChannelError;
pub use predecessors::Predecessors;
pub use reception::{Notice, Prepared, Reception, ReceptionError, prepare};
pub use spread::spread;
pub use successor::{Bequest, Find, Offer, TakenPod, find};
pub use visit::{GivenPod, Parting, Successor, Visit};

/// Where an agent is found by its successor, in the state directory.
pub fn socket_path(state_dir: &Path) -> PathBuf {
    state_dir.join("handover.sock")
}

/// Who an agent is, for the other one.
#[derive(Clone, Debug)]
pub struct Myself {
    /// The place it runs in, which outlives the process: the UID of its pod. An agent does not hand
    /// over to the place that it has itself replaced.
    pub instance: Option<String>,
}

/// The version of the program.
const PROGRAM: &str = env!("CARGO_PKG_VERSION");
