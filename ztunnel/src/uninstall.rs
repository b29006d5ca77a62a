//! Whether the mesh was uninstalled, and clearing a node of it.
//!
//! An agent that is told to end cannot see why: an upgrade, an eviction, a node that is drained or shut
//! down, and an uninstallation all send the same signal. It opens its pods only on positive evidence that
//! the mesh is gone: that a working API server does not serve the mesh's own API group any more, or that
//! control saw the mesh's own objects being deleted (docs/adr/007-uninstall-or-upgrade.md). [`inquiry`] says
//! what the API server's answers amount to, [`discovery`] asks, [`witness`] hears control, [`remains`] removes
//! files.

pub mod discovery;
pub mod inquiry;
pub mod remains;
pub mod witness;

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{debug, info, warn};

use discovery::Discovery;
use inquiry::{Finding, Inquiry, Verdict};

/// Asks until the mesh is found to be uninstalled. What else is found is no reason to end: the mesh's API
/// group may go a while after the agents are told to.
pub async fn until_uninstalled(discovery: &Discovery) {
    let mut inquiry = Inquiry::default();
    // At once: who uninstalls the mesh may delete the agent's account in the same breath, and API servers
    // know an account that asked for ten seconds more.
    let mut moments = interval(INTERVAL);
    // Two answers must be an interval apart also when one was slow.
    moments.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = None;
    loop {
        moments.tick().await;
        let (finding, asked) = (discovery.ask().await, Instant::now());
        let verdict = inquiry.note(&finding, asked.into_std());
        debug!(?finding, ?verdict, "asked the API server for the mesh's API group");
        if last.as_ref() != Some(&finding) {
            report(discovery, &finding);
        }
        last = Some(finding);
        match verdict {
            Verdict::Uninstalled => return,
            Verdict::StayClosed => {}
        }
    }
}

fn report(discovery: &Discovery, finding: &Finding) {
    let server = discovery.server();
    match finding {
        Finding::Installed => info!(server, "the mesh is installed: pods stay closed without an agent"),
        Finding::Gone => info!(server, "the mesh's API group is not served: asking once more"),
        Finding::Unknown(reason) => {
            warn!(server, reason, "it cannot be told whether the mesh is installed: pods stay closed");
        }
    }
}

/// How long after a question the next one is asked. Discovery follows the deletion of a
/// CustomResourceDefinition within about a second.
const INTERVAL: Duration = Duration::from_secs(1);
