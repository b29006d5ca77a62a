//! The authority that is kept in a Secret: made once by whichever replica is first, or plugged in.
//!
//! A Secret is never overwritten. One that cannot be used is an error at start, and later leaves the
//! last good authority in force: everything that trusts its root would be cut off otherwise.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::watch_object;
use kube::{Api, Client, Error, ResourceExt};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_stream::StreamExt;
use tracing::{info, warn};

use crate::ca::authority::{Authority, AuthorityError};
use crate::ca::current::{CurrentAuthority, replace};
use crate::ca::own_root::{self, NewRoot};
use crate::ca::parts::{CA_CERT, CA_KEY, CERT_CHAIN, Parts, Place, ROOT_CERT};

/// The Secret of an administrator's own CA, by the name that Istio gives it. It wins.
const PLUGGED_IN: &str = "cacerts";

/// The Secret that control makes.
const OWN: &str = "ambit-ca";

/// How long to wait before the API server is asked again at start.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Opens the authority of `namespace`, and follows it as long as the result lives. Waits for an API
/// server that is away. Must be called inside a tokio runtime.
///
/// # Errors
/// When the Secret is damaged or has expired.
pub async fn open(client: Client, namespace: &str) -> Result<CurrentAuthority, AuthorityError> {
    let secrets: Api<Secret> = Api::namespaced(client, namespace);
    let (name, seen, authority) = loop {
        let secret = match ensure(&secrets, SystemTime::now()).await {
            Ok(secret) => secret,
            Err(EnsureError::Create(error)) => return Err(error),
            Err(EnsureError::Api(error)) => {
                not_reached(namespace, &error);
                sleep(RETRY_AFTER).await;
                continue;
            }
        };
        let parts = parts_of(&secret)?;
        let authority = Authority::load(&parts, SystemTime::now())?;
        info!(secret = secret.name_any(), ?authority, "certificate authority opened");
        break (secret.name_any(), parts, authority);
    };
    let (publish, current) = watch::channel(Arc::new(authority));
    let followed = tokio::spawn(Followed { name, seen, publish }.follow(secrets));
    Ok(CurrentAuthority::followed(current, followed))
}

fn not_reached(namespace: &str, error: &Error) {
    let error = error as &dyn std::error::Error;
    warn!(error, "Secrets {PLUGGED_IN} and {OWN} of {namespace} cannot be read or made");
}

/// Why there is no Secret.
#[derive(Debug, thiserror::Error)]
enum EnsureError {
    #[error(transparent)]
    Api(#[from] Error),
    #[error(transparent)]
    Create(#[from] AuthorityError),
}

/// The Secret that counts. One is made if there is none; of several replicas that do so the API
/// server lets one succeed, and the others take what that one made.
async fn ensure(secrets: &Api<Secret>, now: SystemTime) -> Result<Secret, EnsureError> {
    for name in [PLUGGED_IN, OWN] {
        if let Some(found) = secrets.get_opt(name).await? {
            return Ok(found);
        }
    }
    let created = secrets.create(&by_us(), &secret_of(own_root::generate(now)?)).await;
    match created {
        Ok(created) => {
            info!("a new root was made in Secret {OWN}");
            Ok(created)
        }
        Err(Error::Api(status)) if status.is_already_exists() => Ok(secrets.get(OWN).await?),
        Err(error) => Err(error.into()),
    }
}

/// What writes of ours are marked with.
fn by_us() -> PostParams {
    PostParams { field_manager: Some(super::FIELD_MANAGER.to_owned()), ..PostParams::default() }
}

/// All keys of Istio's layout, so that the Secret can be taken elsewhere as it is.
fn secret_of(root: NewRoot) -> Secret {
    let NewRoot { certificate, key } = root;
    let data = [
        (CA_CERT, certificate.clone()),
        (CA_KEY, key),
        (ROOT_CERT, certificate.clone()),
        (CERT_CHAIN, certificate),
    ];
    let data = data.map(|(name, text)| (name.to_owned(), ByteString(text.into_bytes())));
    Secret {
        metadata: ObjectMeta {
            name: Some(OWN.to_owned()),
            labels: Some(super::labels()),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from(data)),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    }
}

fn parts_of(secret: &Secret) -> Result<Parts, AuthorityError> {
    let (namespace, name) = (secret.namespace().unwrap_or_default(), secret.name_any());
    Parts::named(|key| {
        let content = secret.data.as_ref().and_then(|data| data.get(key));
        Ok((Place::in_secret(&namespace, &name, key), content.map(|content| content.0.clone())))
    })
}

/// An authority that is replaced when its Secret is.
struct Followed {
    /// The Secret in force.
    name: String,
    seen: Parts,
    publish: watch::Sender<Arc<Authority>>,
}

impl Followed {
    async fn follow(mut self, secrets: Api<Secret>) {
        let mut plugged_in = Box::pin(watch_object(secrets.clone(), PLUGGED_IN).default_backoff());
        let mut own = Box::pin(watch_object(secrets, OWN).default_backoff());
        loop {
            // Cancelling loses nothing: what a stream has is taken from it or stays there.
            let (name, seen) = tokio::select! {
                Some(seen) = plugged_in.next() => (PLUGGED_IN, seen),
                Some(seen) = own.next() => (OWN, seen),
                else => return,
            };
            match seen {
                Ok(secret) => self.take(name, secret.as_ref(), SystemTime::now()),
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    warn!(error, "Secret {name} cannot be watched");
                }
            }
        }
    }

    /// Takes up what became of a Secret. Our own one counts only as long as none is plugged in.
    fn take(&mut self, name: &str, secret: Option<&Secret>, now: SystemTime) {
        let is_in_force = name == self.name;
        match secret {
            None if is_in_force => {
                warn!("Secret {name} is gone: restore it; its CA stays in force until control restarts");
            }
            Some(secret) if is_in_force || name == PLUGGED_IN => match self.changed(secret, now) {
                Ok(None) => {}
                Ok(Some(authority)) => {
                    name.clone_into(&mut self.name);
                    replace(&self.publish, authority, &format!("the CA in Secret {name}"));
                }
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    warn!(
                        error,
                        "Secret {name} has changed and is not used; the last good CA stays in force"
                    );
                }
            },
            None | Some(_) => {}
        }
    }

    fn changed(&mut self, secret: &Secret, now: SystemTime) -> Result<Option<Authority>, AuthorityError> {
        let parts = parts_of(secret)?;
        if parts == self.seen {
            return Ok(None);
        }
        let authority = Authority::load(&parts, now)?;
        self.seen = parts;
        Ok(Some(authority))
    }
}

#[cfg(test)]
mod tests;
