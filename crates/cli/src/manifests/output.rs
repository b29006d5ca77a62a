//! The sources as files: for `kubectl apply -k`, and for Helm.

use std::collections::BTreeMap;

use super::{Source, TemplateError, Values};

/// Stands at the top of every file that is written.
const HEADER: &str = "# Written from deploy/manifests by `ambit manifests`: change it there.\n";

/// Files by path.
pub(super) type Files = BTreeMap<String, String>;

/// What `kubectl apply -k` reads: the default values, and a component for each source that they
/// leave out.
///
/// # Errors
/// When a source names a setting that does not exist.
pub fn kustomization(sources: &[Source], values: &Values) -> Result<Files, TemplateError> {
    let mut files = Files::new();
    let mut resources = String::new();
    for source in sources {
        let file = format!("{}.yaml", source.name);
        let text = format!("{HEADER}{}", source.render(values)?);
        if source.applies(values) {
            resources.push_str(&format!("  - {file}\n"));
            files.insert(file, text);
        } else {
            let directory = format!("components/{}", source.name);
            let component = format!(
                "{HEADER}apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\nresources:\n  - {file}\n"
            );
            files.insert(format!("{directory}/{file}"), text);
            files.insert(format!("{directory}/kustomization.yaml"), component);
        }
    }
    let kustomization = format!(
        "{HEADER}apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n{resources}"
    );
    files.insert("kustomization.yaml".to_owned(), kustomization);
    Ok(files)
}

/// The templates of the Helm chart.
pub fn chart(sources: &[Source]) -> Files {
    let template = |(index, source): (usize, &Source)| {
        (format!("templates/{index}0-{}.yaml", source.name), format!("{HEADER}{}", source.helm()))
    };
    sources.iter().enumerate().map(template).collect()
}
