//! The Role that is shipped for control, under names that are a scenario's own.

use std::fs;
use std::path::Path;
use std::time::Duration;

use ambit_tests::cluster::kinds::{
    CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, CONFIG_MAPS, Kind, NAMESPACES, ROLE_BINDINGS, ROLES,
};
use ambit_tests::cluster::token;
use ambit_tests::kube_api::{Asked, unused};
use ambit_tests::kube_gate::Passed;
use ambit_tests::wait::until_answered;
use anyhow::{Context, Result, bail, ensure};
use kube::api::PostParams;
use serde_json::Value;

use crate::place::Place;

/// As `kubectl apply -k` takes them.
const SHIPPED: [&str; 2] =
    ["../deploy/daemonset/control-rbac.yaml", "../deploy/daemonset/waypoint-rbac.yaml"];

/// Where the Role says that control is.
const SHIPPED_NAMESPACE: &str = "ambit-system";

/// What a request may be refused without harm: whether the server is ready is asked where it may be.
const MAY_BE_REFUSED: &str = "/readyz";

/// What control may do in a scenario.
pub(crate) struct Role {
    /// The objects with rules, as they are in force.
    with_rules: Vec<Value>,
}

impl Role {
    /// Creates it for the account `control` of `namespace`, and waits until it is in force.
    pub(crate) async fn grant(place: &Place, namespace: &str) -> Result<Self> {
        let mut with_rules = Vec::new();
        let mut texts = Vec::new();
        for file in SHIPPED {
            let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
            texts.push(fs::read_to_string(&file).with_context(|| file.display().to_string())?);
        }
        for document in texts.iter().flat_map(|text| text.split("\n---\n")) {
            let mut object: Value = serde_saphyr::from_str(document)?;
            let Some(kind) = kind_of(&object)? else { continue };
            adapt(&mut object, kind, namespace);
            let name = object["metadata"]["name"].as_str().context("an object has a name")?;
            place.remove_later(kind, namespace, name);
            let api = kind.api(place.client.clone(), namespace);
            api.create(&PostParams::default(), &kind.object(object.clone())?).await?;
            if object["rules"].is_array() {
                with_rules.push(object);
            }
        }
        ensure!(with_rules.len() >= 3, "{SHIPPED:?} hold {} roles", with_rules.len());
        let role = Self { with_rules };
        role.in_force(place, namespace).await?;
        Ok(role)
    }

    async fn in_force(&self, place: &Place, namespace: &str) -> Result<()> {
        let token = token::request(&place.client, (namespace, "control"), &[], None).await?;
        let client = place.client_with(&token).await?;
        let (everywhere, here) = (NAMESPACES.api(client.clone(), ""), CONFIG_MAPS.api(client, namespace));
        until_answered("the Role of control to be in force", Duration::from_secs(30), async || {
            everywhere.list(&Default::default()).await?;
            Ok(here.get_opt("ambit-ca-root-cert").await?)
        })
        .await?;
        Ok(())
    }

    /// Fails if a request was refused.
    pub(crate) fn was_enough(passed: &[Passed]) -> Result<()> {
        let is_refused = |one: &&Passed| one.code == 403 && !one.comes_too_late && one.path != MAY_BE_REFUSED;
        let refused = passed.iter().filter(is_refused);
        let refused: Vec<String> =
            refused.map(|one| format!("{} {}?{}", one.method, one.path, one.query)).collect();
        ensure!(refused.is_empty(), "the Role of control is not enough for:\n{}", refused.join("\n"));
        Ok(())
    }

    /// What it gives that was not asked for.
    pub(crate) fn unused(&self, passed: &[Passed]) -> Vec<String> {
        let mut asked = Vec::new();
        for one in passed {
            let Some(request) = Asked::by(&one.method, &one.path, &one.query) else { continue };
            if one.method == "PATCH" && one.code == 201 {
                asked.push(request.creating());
            }
            asked.push(request);
        }
        self.with_rules.iter().flat_map(|role| unused(role, &asked)).collect()
    }
}

/// The kind of a document; none for accounts, which a mesh has anyway.
fn kind_of(object: &Value) -> Result<Option<Kind>> {
    let kinds = [CLUSTER_ROLES, CLUSTER_ROLE_BINDINGS, ROLES, ROLE_BINDINGS];
    match object["kind"].as_str() {
        Some("ServiceAccount") => Ok(None),
        Some(name) => match kinds.into_iter().find(|kind| kind.kind == name) {
            Some(kind) => Ok(Some(kind)),
            None => bail!("{SHIPPED:?} have a {name}, which the suite does not know"),
        },
        None => bail!("{SHIPPED:?} have a document without a kind"),
    }
}

/// Gives an object the scenario's namespace, and one of the cluster a name that nobody else has.
fn adapt(object: &mut Value, kind: Kind, namespace: &str) {
    let own = |name: &Value| format!("{}-{namespace}", name.as_str().unwrap_or_default());
    if kind.plural.starts_with("cluster") {
        object["metadata"]["name"] = own(&object["metadata"]["name"]).into();
    }
    if object["metadata"]["namespace"] == SHIPPED_NAMESPACE {
        object["metadata"]["namespace"] = namespace.into();
    }
    if object["roleRef"]["kind"] == "ClusterRole" {
        object["roleRef"]["name"] = own(&object["roleRef"]["name"]).into();
    }
    for subject in object["subjects"].as_array_mut().into_iter().flatten() {
        subject["namespace"] = namespace.into();
    }
}
