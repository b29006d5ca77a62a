//! The CustomResourceDefinitions that Ambit owns, from the Rust types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceDefinition,
};
use kube::CustomResourceExt;

use super::reports::report::ProxyReport;
use super::waypoints::kind::Waypoint;

/// What `kubectl get proxyreports` shows: name, type, path, meaning.
const REPORT_COLUMNS: [[&str; 4]; 6] = [
    ["Proxies", "integer", ".spec.connected", "Proxies connected to this replica"],
    ["In sync", "integer", ".spec.inSync", "Those that have acknowledged every policy"],
    ["Policies", "integer", ".spec.policies.total", "Policies of layer 4 that this replica serves"],
    ["Refusing", "integer", ".spec.refusing", "Proxies that have refused a policy"],
    ["Renewed", "date", ".spec.renewTime", "When the replica last confirmed it"],
    ["Age", "date", ".metadata.creationTimestamp", "Since when there is this report"],
];

/// What `kubectl get waypoints.deploy.ambit.dev` shows.
const WAYPOINT_COLUMNS: [[&str; 4]; 3] = [
    ["Gateway", "string", ".spec.gateway", "The Gateway that it was made of"],
    ["Image", "string", ".spec.image", "What its pods run"],
    ["Age", "date", ".metadata.creationTimestamp", "Since when there is this waypoint"],
];

/// All of them.
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![with_columns(ProxyReport::crd(), &REPORT_COLUMNS), with_columns(Waypoint::crd(), &WAYPOINT_COLUMNS)]
}

fn with_columns(mut definition: CustomResourceDefinition, columns: &[[&str; 4]]) -> CustomResourceDefinition {
    let column = |&[name, kind, path, meaning]: &[&str; 4]| CustomResourceColumnDefinition {
        name: name.to_owned(),
        type_: kind.to_owned(),
        json_path: path.to_owned(),
        description: Some(meaning.to_owned()),
        ..CustomResourceColumnDefinition::default()
    };
    for version in &mut definition.spec.versions {
        version.additional_printer_columns = Some(columns.iter().map(column).collect());
    }
    definition
}

/// All of them as one YAML file.
///
/// # Errors
/// When a definition cannot be written as YAML.
pub fn yaml() -> Result<String, serde_saphyr::ser_error::Error> {
    let mut text = "# Made by `control crds` from the Rust types: do not edit.\n".to_owned();
    for definition in all() {
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(&definition)?);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_shipped_file_is_made_from_the_types() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/manifests/10-crds.yaml");
        let made = yaml().unwrap();
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&file, &made).unwrap();
        }
        let shipped = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(shipped == made, "{} is not what the types make: UPDATE=1 writes it", file.display());
    }
}
