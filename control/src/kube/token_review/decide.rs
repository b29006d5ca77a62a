//! What a reviewed token makes of its bearer. Pure.
//!
//! Two steps: what the API server confirms of the token, which may be kept for a while, and what is
//! so of that pod now, which is asked every time: a token outlives its pod at the API server for as
//! long as that keeps its own answers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use k8s_openapi::api::authentication::v1::{TokenReviewStatus, UserInfo};
use serde::{Serialize, Serializer};

use super::shown::{Shown, Unreadable};
use crate::ca::grant::{Caller, waypoint_caller};
use crate::inputs::Inputs;
use crate::objects::{Kind, KnownKind, Object, ObjectKey};
use crate::translate::waypoints;

const USERNAME_PREFIX: &str = "system:serviceaccount:";
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

/// Whose tokens count.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Whom a token has to be for; one of these.
    pub audiences: Vec<String>,
    /// The ServiceAccounts of node agents.
    pub agents: BTreeSet<Account>,
}

/// A ServiceAccount.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Account {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

/// The pod that a token was made for, as the API server confirms it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Whose token it is.
    pub account: Account,
    /// The pod's name.
    pub pod: Arc<str>,
    /// The pod's UID.
    pub uid: Arc<str>,
    /// The node that the pod was bound to when the token was made.
    pub node: Arc<str>,
}

/// Why a token does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant is its message")]
pub enum Refusal {
    #[error("the token is not one of a ServiceAccount: project one with serviceAccountToken")]
    Unreadable(#[from] Unreadable),
    #[error("the token has expired: read its file again for every call")]
    Expired,
    #[error("the token is for {found:?} and not for {wanted:?}: check the audience that is projected")]
    Audience { found: Vec<String>, wanted: Vec<String> },
    #[error("the API server does not accept the token: {said}")]
    NotAuthenticated { said: String },
    #[error(
        "{username:?} is neither the ServiceAccount of a node agent (see --agent-service-account) nor that of \
         a pod with the label gateway.networking.k8s.io/gateway-name of a waypoint of its namespace"
    )]
    Account { username: String },
    #[error("the token is bound to no pod: project one with serviceAccountToken")]
    NoPod,
    #[error("the token of pod {pod} names no node: that takes Kubernetes 1.32 or newer")]
    NoNode { pod: Arc<str> },
    #[error("pod {account}/{pod} of the token does not exist any more", account = account.namespace)]
    PodIsGone { account: Account, pod: Arc<str> },
    #[error("the token is that of an earlier pod named {pod}")]
    OtherPod { pod: Arc<str> },
    #[error("the token is that of {pod} on node {token}, and that pod is on node {now:?}")]
    OtherNode { pod: Arc<str>, token: Arc<str>, now: String },
    #[error("pod {pod} has the ServiceAccount {now}, and not that of the token")]
    OtherAccount { pod: Arc<str>, now: String },
    #[error("pod {pod} of the token has ended")]
    PodHasEnded { pod: Arc<str> },
}

/// Whether the API server need not be asked, because it could only refuse. Nothing is believed that
/// a token says of itself beyond that.
///
/// # Errors
/// When nobody's token looks like this.
pub(super) fn worth_asking(
    shown: &Shown,
    rules: &Rules,
    inputs: &Inputs,
    now_seconds: i64,
) -> Result<(), Refusal> {
    if shown.expires_seconds.saturating_add(CLOCKS_DIFFER_SECONDS) < now_seconds {
        return Err(Refusal::Expired);
    }
    is_for_us(&shown.audiences, rules)?;
    let account = account(&shown.subject)?;
    let is_known = rules.agents.contains(&account) || waypoints::has_account(inputs, &account);
    is_known.then_some(()).ok_or_else(|| Refusal::Account { username: shown.subject.clone() })
}

/// A token that has expired by our clock and may not have by the API server's.
const CLOCKS_DIFFER_SECONDS: i64 = 60;

/// What the API server confirms of a token.
///
/// # Errors
/// When that is not what a caller needs.
pub(super) fn confirmed(status: &TokenReviewStatus, rules: &Rules) -> Result<Bound, Refusal> {
    if status.authenticated != Some(true) {
        let said = status.error.clone().unwrap_or_else(|| "it does not say why".to_owned());
        return Err(Refusal::NotAuthenticated { said });
    }
    // An API server that knows nothing of audiences confirms any token, and returns none.
    is_for_us(status.audiences.as_deref().unwrap_or_default(), rules)?;
    let nobody = UserInfo::default();
    let user = status.user.as_ref().unwrap_or(&nobody);
    let account = account(user.username.as_deref().unwrap_or_default())?;
    let extra = user.extra.as_ref();
    let pod = only(extra, POD_NAME).ok_or(Refusal::NoPod)?;
    let uid = only(extra, POD_UID).ok_or(Refusal::NoPod)?;
    let node = only(extra, NODE_NAME).ok_or_else(|| Refusal::NoNode { pod: pod.clone() })?;
    Ok(Bound { account, pod, uid, node })
}

/// The caller that a pod is at this moment: the agent of its node, or a waypoint's pod for itself.
///
/// # Errors
/// When the pod is not there any more, or not as the token says.
pub(super) fn caller(bound: &Bound, rules: &Rules, inputs: &Inputs) -> Result<Caller, Refusal> {
    let Bound { account, pod, uid, node } = bound;
    let is_agent = rules.agents.contains(account);
    if !is_agent && !waypoints::is_pod(inputs, &account.namespace, pod) {
        let username = format!("{USERNAME_PREFIX}{}:{}", account.namespace, account.name);
        return Err(Refusal::Account { username });
    }
    let key = ObjectKey {
        kind: Kind::Known(KnownKind::Pod),
        namespace: Some(account.namespace.clone()),
        name: pod.clone(),
    };
    let Some(Object::Pod(found)) = inputs.entry(&key).and_then(|entry| entry.object()) else {
        return Err(Refusal::PodIsGone { account: account.clone(), pod: pod.clone() });
    };
    if found.metadata.uid != **uid {
        return Err(Refusal::OtherPod { pod: pod.clone() });
    }
    if found.spec.node_name != **node {
        let (pod, token, now) = (pod.clone(), node.clone(), found.spec.node_name.clone());
        return Err(Refusal::OtherNode { pod, token, now });
    }
    if found.service_account() != &*account.name {
        return Err(Refusal::OtherAccount { pod: pod.clone(), now: found.service_account().to_owned() });
    }
    if found.is_finished() {
        return Err(Refusal::PodHasEnded { pod: pod.clone() });
    }
    Ok(Caller::authenticated(match is_agent {
        true => node.clone(),
        false => waypoint_caller(&account.namespace, pod),
    }))
}

fn is_for_us(audiences: &[String], rules: &Rules) -> Result<(), Refusal> {
    if audiences.iter().any(|audience| rules.audiences.contains(audience)) {
        return Ok(());
    }
    Err(Refusal::Audience { found: audiences.to_vec(), wanted: rules.audiences.clone() })
}

fn account(username: &str) -> Result<Account, Refusal> {
    let account = username.strip_prefix(USERNAME_PREFIX).and_then(|account| account.split_once(':'));
    let account = account.map(|(namespace, name)| Account { namespace: namespace.into(), name: name.into() });
    account.ok_or_else(|| Refusal::Account { username: username.to_owned() })
}

/// The value of a claim that has exactly one.
fn only(extra: Option<&BTreeMap<String, Vec<String>>>, claim: &str) -> Option<Arc<str>> {
    match extra?.get(claim)?.as_slice() {
        [value] if !value.is_empty() => Some(value.as_str().into()),
        _ => None,
    }
}

impl FromStr for Account {
    type Err = NotAnAccount;

    fn from_str(text: &str) -> Result<Self, NotAnAccount> {
        let is_name = |name: &str| !name.is_empty() && !name.contains(['/', ':']);
        match text.split_once('/') {
            Some((namespace, name)) if is_name(namespace) && is_name(name) => {
                Ok(Self { namespace: namespace.into(), name: name.into() })
            }
            _ => Err(NotAnAccount),
        }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl Serialize for Account {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A text that names no ServiceAccount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a ServiceAccount is written NAMESPACE/NAME")]
pub struct NotAnAccount;

#[cfg(test)]
mod tests;
