//! `ambit version`: of this command, and of what the cluster runs.

use std::collections::BTreeMap;

use ambit_kube::{Access, ConnectError};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use kube::{Client, Error};
use serde_json::json;

use crate::args::{Output, VersionArgs};
use crate::table::table;
use crate::{NAMESPACE, PART_OF};

/// Why the versions of a cluster are not known.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant is its message")]
pub enum VersionError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the API server does not answer: --client prints this command's version alone")]
    Api(#[from] Box<Error>),
}

/// How many pods of a program run an image.
pub type Images = BTreeMap<(String, String), usize>;

/// Prints the versions.
///
/// # Errors
/// When the cluster cannot be asked.
pub async fn run(access: &Access, args: &VersionArgs) -> Result<(), VersionError> {
    let images = match args.client {
        true => Images::new(),
        false => images(&ambit_kube::connect(access).await?).await.map_err(Box::new)?,
    };
    print(args.output.output, &images);
    Ok(())
}

/// The images that the mesh's pods run.
///
/// # Errors
/// When the API server does not answer.
pub(crate) async fn images(client: &Client) -> Result<Images, Error> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let mut images = Images::new();
    for pod in pods.list(&ListParams::default().labels(PART_OF)).await? {
        for container in pod.spec.iter().flat_map(|spec| &spec.containers) {
            let image = container.image.clone().unwrap_or_default();
            *images.entry((container.name.clone(), image)).or_default() += 1;
        }
    }
    Ok(images)
}

#[expect(clippy::print_stdout, reason = "the command's output")]
fn print(output: Output, images: &Images) {
    let own = env!("CARGO_PKG_VERSION");
    match output {
        Output::Json => {
            let cluster: Vec<_> = images
                .iter()
                .map(|((program, image), pods)| json!({"program": program, "image": image, "pods": pods}))
                .collect();
            println!("{:#}", json!({"client": own, "cluster": cluster}));
        }
        Output::Table => {
            println!("ambit {own}");
            if !images.is_empty() {
                let row = |((program, image), pods): (&(String, String), &usize)| {
                    [program.clone(), image.clone(), pods.to_string()]
                };
                print!(
                    "{}",
                    table(["PROGRAM", "IMAGE", "PODS"], &images.iter().map(row).collect::<Vec<_>>())
                );
            }
        }
    }
}
