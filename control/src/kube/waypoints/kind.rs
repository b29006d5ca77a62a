//! `Waypoint`: what control made of a Gateway. It is owned by the Gateway, and owns the rest.
//!
//! What is owned by a Gateway alone stays when the mesh is uninstalled, since the Gateway is its user's. Instances go with
//! their definition, which is part of the installation, so that a waypoint goes with either. The group is another than
//! that of ProxyReports: `ambit uninstall` deletes those at first and this at last (docs/adr/007).

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What control has made of a Gateway of class ambit-waypoint. Written by control; it owns the Deployment and the other
/// objects, and goes with its Gateway.
#[derive(Clone, Debug, Default, PartialEq, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "deploy.ambit.dev",
    version = "v1alpha1",
    kind = "Waypoint",
    plural = "waypoints",
    doc = "What control has made of a Gateway of class ambit-waypoint. Written by control.",
    namespaced,
    label("app.kubernetes.io/part-of", "ambit")
)]
#[serde(rename_all = "camelCase")]
pub struct WaypointSpec {
    /// The Gateway, of this namespace.
    pub gateway: String,
    /// The image that its pods run, unless a ConfigMap of the Gateway's says otherwise.
    pub image: String,
}
