//! The roots for everybody to read: ConfigMap `ambit-ca-root-cert`, which agents verify control with.
//!
//! Every replica keeps it, for none knows whether another one does; it is written only when it says
//! something else than the authority in force.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Error};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::ca::authority::Authority;
use crate::ca::parts::ROOT_CERT;

/// The ConfigMap.
const NAME: &str = "ambit-ca-root-cert";

/// How often it is looked at though nothing has changed here: somebody may have deleted it. Two
/// replicas that see different files of a CA for a while write it no more often than this.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// How long to wait after a failure.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Keeps the ConfigMap of `namespace` up to date for as long as it runs.
pub async fn keep(client: Client, namespace: String, mut authority: watch::Receiver<Arc<Authority>>) {
    let maps: Api<ConfigMap> = Api::namespaced(client, &namespace);
    loop {
        let roots = authority.borrow_and_update().roots_pem();
        let wait = match ensure(&maps, &roots).await {
            Ok(Kept::AsItWas) => LOOK_EVERY,
            Ok(Kept::Written) => {
                info!("the roots were written to ConfigMap {namespace}/{NAME}");
                LOOK_EVERY
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                warn!(error, "ConfigMap {namespace}/{NAME} cannot be kept up to date");
                RETRY_AFTER
            }
        };
        // Without changes to wait for, time alone decides.
        if let Ok(Err(_)) = timeout(wait, authority.changed()).await {
            tokio::time::sleep(wait).await;
        }
    }
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    AsItWas,
    Written,
}

async fn ensure(maps: &Api<ConfigMap>, roots: &str) -> Result<Kept, Error> {
    let now = maps.get_opt(NAME).await?.and_then(|map| map.data);
    if now.as_ref().and_then(|data| data.get(ROOT_CERT)).is_some_and(|now| now == roots) {
        return Ok(Kept::AsItWas);
    }
    let map = ConfigMap {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            labels: Some(super::labels()),
            ..ObjectMeta::default()
        },
        data: Some([(ROOT_CERT.to_owned(), roots.to_owned())].into()),
        ..ConfigMap::default()
    };
    maps.patch(NAME, &PatchParams::apply(super::FIELD_MANAGER).force(), &Patch::Apply(&map)).await?;
    Ok(Kept::Written)
}

#[cfg(test)]
mod tests;
