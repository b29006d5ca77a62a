//! How an agent comes to serve a node: by taking over from the one that does, or anew.

use std::path::Path;
use std::time::Duration;

use ambit_identity::manager::Issuer;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::configuration::Source;
use crate::handover::{ChannelError, Find, Myself, Offer, find};
use crate::pods::{PodManager, TakeError};

/// Why it did not come to a hand-over this time.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error(transparent)]
    Take(#[from] TakeError),
}

/// Waits until this process is the one that serves the node's pods, and returns where the process ran
/// that it replaces, if that is known. An agent that serves is never pushed aside: as long as one is
/// there that could hand over and does not, it goes on, and this process waits, unready.
///
/// Cancelling it before leaves everything to the predecessor.
pub async fn take_over<I: Issuer>(
    socket: &Path,
    myself: &Myself,
    manager: &mut PodManager<I>,
    source: &mut watch::Receiver<Source>,
) -> Option<String> {
    let mut said = String::new();
    loop {
        let obstacle = match find(socket, myself).await {
            Ok(Find::Nobody) => return None,
            Ok(Find::Foreign { program }) => {
                warn!(
                    program,
                    "the agent that serves this node cannot hand over to this version: listening beside it"
                );
                return None;
            }
            Ok(Find::Predecessor(offer)) => {
                configured(source).await;
                let replaced = offer.instance.clone();
                match take(offer, manager).await {
                    Ok(()) => return replaced,
                    Err(failure) => failure.to_string(),
                }
            }
            Ok(Find::Wait { reason }) => reason.to_owned(),
            Err(error) => error.to_string(),
        };
        // Once for each obstacle: some last for as long as another process lives.
        if obstacle != said {
            warn!(obstacle, "this agent does not serve so far: trying again");
            said = obstacle;
        }
        sleep(RETRY).await;
    }
}

async fn take<I: Issuer>(offer: Offer, manager: &mut PodManager<I>) -> Result<(), Failure> {
    info!(program = offer.program, "taking over from the agent that serves this node");
    let mut bequest = offer.take().await?;
    manager.take_over(std::mem::take(&mut bequest.pods)).await?;
    manager.own(bequest.serving().await?);
    Ok(())
}

/// Waits for a configuration. One of an earlier run serves, and control's is better: the predecessor
/// serves meanwhile.
async fn configured(source: &mut watch::Receiver<Source>) {
    // It fails only when nobody will ever have a configuration; then there is nothing to wait for.
    if source.wait_for(|source| *source != Source::Nowhere).await.is_ok() {
        let _late = timeout(CONTROL_FIRST, source.wait_for(|source| *source == Source::Control)).await;
    }
}

/// How long control is waited for where there is a configuration of an earlier run.
const CONTROL_FIRST: Duration = Duration::from_secs(10);

/// How long after a failure it is tried again.
const RETRY: Duration = Duration::from_millis(500);
