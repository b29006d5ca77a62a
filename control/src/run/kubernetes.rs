//! The parts of control that reads an API server. What it keeps, the API server keeps.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::{LINGER, Parts, RunError, Statuses};
use crate::ca::authentication::Proof;
use crate::ca::current::CurrentAuthority;
use crate::config::{Flags, KubernetesMode};
use crate::kube::token_review::TokenReviews;
use crate::kube::waypoints::Deploying;
use crate::kube::{bundle, root};
use crate::memory::Memory;
use crate::pipeline::Pipeline;
use crate::publish::Published;
use crate::source::Source;
use crate::state::{self, Access};

pub(super) async fn prepare(
    flags: &Flags,
    mode: &KubernetesMode,
    pipeline: Pipeline,
    published: &Published,
) -> Result<Parts, RunError> {
    // Bad credentials are an error of start; an API server that is away is waited for.
    let client = ambit_kube::connect(&mode.access).await?;
    let authority = match &flags.ca_dir {
        Some(directory) => CurrentAuthority::open_directory(directory, None)?,
        None => root::open(client.clone(), &mode.replica.namespace).await?,
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(bundle::keep(client.clone(), mode.replica.namespace.clone(), authority.subscribe()));
    let rules = flags.token_rules(&mode.replica.namespace);
    let reviews = TokenReviews::new(client.clone(), rules, published.generation.clone());
    let proof = Proof::TokenReviews(Arc::new(reviews));
    let pipeline = match &mode.state {
        Some(state) => {
            state::make_directory(state, Access::Public)?;
            pipeline.remembering(Memory::open(state.join("last-good"))?)
        }
        None => pipeline,
    };
    let source =
        Source::Kubernetes { access: mode.access.clone(), namespace: mode.replica.namespace.clone() };
    let deploying = flags.waypoints(&mode.replica.namespace);
    let deploying = deploying.map(|common| Box::new(Deploying { common, authority: authority.subscribe() }));
    let statuses = Statuses::Kubernetes { client, replica: mode.replica.clone(), deploying };
    Ok(Parts { authority, proof, pipeline, source, statuses, linger: LINGER, tasks })
}
