//! Limits of the process that the kernel sets low for programs without many connections.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::{info, warn};

/// Raises the number of descriptors to what the process is allowed: each connection takes one or two.
pub fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(soft, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map(|()| (soft, hard)));
    match raised {
        Ok((soft, hard)) if soft < hard => info!(from = soft, to = hard, "descriptor limit raised"),
        Ok(_) => {}
        Err(error) => warn!(%error, "the descriptor limit cannot be raised: many connections may be refused"),
    }
}
