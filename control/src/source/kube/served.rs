//! Which kinds an API server serves, and in which version. Kinds of Kubernetes itself are always
//! there; others come and go with their CRDs.

use std::time::Duration;

use kube::Client;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::follow::Follower;
use super::health::Health;
use super::held::Seen;
use super::request::{self, Failure};
use super::resource::{Resource, group_path};
use super::retry::Retry;
use crate::objects::KnownKind;
use crate::objects::values::null_is_default;

/// How often a kind is looked for: a CRD that is installed is noticed about this late.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// How often in a row a kind must be missing before its objects are taken for gone. An API server
/// deletes the objects before their kind, and tells so: this only guards against one that starts
/// and does not know its own CRDs yet, and to take policies back would open what they close.
const MISSING_BEFORE_GONE: u32 = 5;

/// Follows a kind, whenever it is served, until nobody listens.
pub(super) async fn follow(client: Client, kind: KnownKind, seen: mpsc::Sender<Seen>, health: Health) {
    let follower = |version| {
        let resource = Resource { kind, version };
        Follower::new(client.clone(), resource, seen.clone(), health.clone())
    };
    if let Presence::Always { version } = presence(kind) {
        follower(version).follow().await;
        return;
    }
    loop {
        match look_until_known(&client, kind, &health).await {
            Some(version) => {
                tracing::info!(kind = kind.name(), version, "the kind is served");
                tokio::select! {
                    _deaf = follower(version).follow() => return,
                    // Ends the follower wherever it is: another version, or nothing, is followed.
                    () = until_other_than(&client, kind, version) => {}
                }
            }
            None => {
                health.is_not_served(kind);
                if seen.send(Seen::NotServed(kind)).await.is_err() {
                    return;
                }
                sleep(LOOK_EVERY).await;
            }
        }
    }
}

/// Whether a kind can be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    Always { version: &'static str },
    WhenServed,
}

fn presence(kind: KnownKind) -> Presence {
    match kind {
        KnownKind::Namespace
        | KnownKind::Node
        | KnownKind::Pod
        | KnownKind::Service
        | KnownKind::EndpointSlice
        | KnownKind::ServiceAccount => Presence::Always { version: "v1" },
        KnownKind::AuthorizationPolicy
        | KnownKind::PeerAuthentication
        | KnownKind::ServiceCidr
        | KnownKind::Gateway
        | KnownKind::HttpRoute
        | KnownKind::GrpcRoute
        | KnownKind::TcpRoute
        | KnownKind::TlsRoute
        | KnownKind::VirtualService
        | KnownKind::DestinationRule
        | KnownKind::ServiceEntry => Presence::WhenServed,
    }
}

/// Looks until the API server gives an answer.
async fn look_until_known(client: &Client, kind: KnownKind, health: &Health) -> Option<&'static str> {
    let mut retry = Retry::default();
    loop {
        match version(client, kind).await {
            Ok(version) => return version,
            Err(failure) => {
                health.fails(kind, &failure);
                let wait = retry.after_failure(failure.retry_after(), &mut rand::rng());
                sleep(wait).await;
            }
        }
    }
}

async fn until_other_than(client: &Client, kind: KnownKind, followed: &str) {
    let mut missing = 0;
    while missing < MISSING_BEFORE_GONE {
        sleep(LOOK_EVERY).await;
        match version(client, kind).await {
            Ok(Some(version)) if version != followed => return,
            Ok(None) => missing += 1,
            // No answer proves nothing.
            Ok(Some(_)) | Err(_) => missing = 0,
        }
    }
}

/// The first of the kind's versions that is served; `None` when none is.
async fn version(client: &Client, kind: KnownKind) -> Result<Option<&'static str>, Failure> {
    for version in kind.versions() {
        if serves(client, kind, version).await? {
            return Ok(Some(version));
        }
    }
    must_be_complete(client).await?;
    Ok(None)
}

async fn serves(client: &Client, kind: KnownKind, version: &str) -> Result<bool, Failure> {
    #[derive(Deserialize)]
    struct Resources {
        #[serde(default, deserialize_with = "null_is_default")]
        resources: Vec<Named>,
    }
    #[derive(Deserialize)]
    struct Named {
        name: String,
    }
    let what = "a list of kinds";
    match request::text(client, &group_path(kind.group(), version), what).await {
        Ok(text) => {
            let found: Resources = serde_json::from_str(&text).map_err(|_| Failure::garbled(what))?;
            Ok(found.resources.iter().any(|resource| resource.name == kind.plural()))
        }
        Err(Failure::Refused { status: 404, .. }) => Ok(false),
        Err(failure) => Err(failure),
    }
}

/// While an API server starts it may not know its CRDs yet, and says so here.
async fn must_be_complete(client: &Client) -> Result<(), Failure> {
    match request::text(client, "/readyz", "readiness").await {
        Ok(_) => Ok(()),
        // Hidden by an administrator, or by a proxy: what was said before has to do.
        Err(failure) if failure.status().is_some_and(|status| status < 500) => Ok(()),
        Err(failure) => Err(failure),
    }
}
