//! The CustomResourceDefinitions that Ambit owns, from the Rust types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use super::reports::report::ProxyReport;

/// All of them.
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![ProxyReport::crd()]
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
