//! What each policy says of a request, whether it decides or not: for explanations.
//!
//! Nothing is decided here; the conditions are asked by the same functions as where it is.

use std::borrow::Cow;

use super::{Facts, Policies, Reading, matching_rule};
use crate::http::client::{Client, Head};
use crate::http::destination::Destination;
use crate::http::normalize::{Path, percent_decoded};
use crate::http::policy::HttpAction;
use crate::http::snapshot::WaypointSnapshot;
use crate::policy::PolicyName;

/// What one policy says of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConsulted {
    /// The policy.
    pub policy: PolicyName,
    /// What a match of it means.
    pub action: HttpAction,
    /// Whether it is on trial.
    pub dry_run: bool,
    /// The position of the rule that matches, from 0; `None` when none does.
    pub rule: Option<usize>,
    /// The same where the path is read with every escape decoded, as some servers read it. It must be
    /// allowed too.
    pub decoded_rule: Option<usize>,
}

/// What every policy that guards `destination` says of a request, or of a connection that is no HTTP
/// where there is none.
pub fn consulted(
    snapshot: &WaypointSnapshot,
    destination: &Destination,
    client: &Client,
    request: Option<(&Head<'_>, &Path)>,
) -> Vec<HttpConsulted> {
    let path = request.map(|(_, path)| path.path()).unwrap_or_default();
    let decoded = percent_decoded(path);
    let is_same = matches!(decoded, Cow::Borrowed(_));
    let [mut as_sent, mut otherwise] = [(); 2].map(|()| Facts::of(destination, client));
    if let Some((head, _)) = request {
        as_sent.asking(head, path, Reading::AsSent);
        otherwise.asking(head, &decoded, if is_same { Reading::AsSent } else { Reading::Decoded });
    }
    let policies = Policies::of(snapshot, destination);
    let says = policies.0.iter().map(|policy| HttpConsulted {
        policy: policy.name.clone(),
        action: policy.action,
        dry_run: policy.dry_run,
        rule: matching_rule(policy, &as_sent),
        decoded_rule: matching_rule(policy, &otherwise),
    });
    says.collect()
}
