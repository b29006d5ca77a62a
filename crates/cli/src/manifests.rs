//! The objects of an installation, from one source: `deploy/manifests`, with the values of
//! `deploy/helm/values.yaml`. What `kubectl apply -k` and Helm read is written from it.

mod output;
mod template;
mod values;
mod write;

pub use output::{chart, kustomization};
pub use template::{Source, TemplateError};
pub use values::{Values, ValuesError};
pub use write::{WriteError, write};

/// The sources, in the order in which they are applied.
pub const SOURCES: [(&str, &str); 9] = [
    ("namespace", include_str!("../../../deploy/manifests/00-namespace.yaml")),
    ("crds", include_str!("../../../deploy/manifests/10-crds.yaml")),
    ("admission", include_str!("../../../deploy/manifests/15-admission.yaml")),
    ("control-rbac", include_str!("../../../deploy/manifests/20-control-rbac.yaml")),
    ("waypoint-rbac", include_str!("../../../deploy/manifests/25-waypoint-rbac.yaml")),
    ("control", include_str!("../../../deploy/manifests/30-control.yaml")),
    ("ztunnel", include_str!("../../../deploy/manifests/40-ztunnel.yaml")),
    ("network-policy", include_str!("../../../deploy/manifests/50-network-policy.yaml")),
    ("pod-monitor", include_str!("../../../deploy/manifests/60-pod-monitor.yaml")),
];

/// The values that hold where nothing else is said.
pub const DEFAULT_VALUES: &str = include_str!("../../../deploy/helm/values.yaml");

/// Every source, read.
///
/// # Errors
/// When a placeholder or directive is malformed.
pub fn sources() -> Result<Vec<Source>, TemplateError> {
    SOURCES.into_iter().map(|(name, text)| Source::parse(name, text)).collect()
}

#[cfg(test)]
mod tests;
