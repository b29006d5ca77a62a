//! `ambit check`: whether a cluster can have the mesh, and whether an installed one is healthy.

use std::process::ExitCode;

use ambit_kube::Access;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams, PostParams};
use kube::{Client, Error};
use serde::Serialize;

use crate::args::{Output, OutputArgs};
use crate::status::{self, Overview, StatusError};
use crate::table::table;

mod findings;

use findings::{Facts, findings};

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub subject: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// What was found, and what to do about it.
    pub message: String,
}

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// Worth knowing.
    Warning,
    /// The mesh cannot be installed, or does not work.
    Bad,
}

/// Prints findings; the exit code tells whether one is bad.
///
/// # Errors
/// When the API server cannot be asked.
pub async fn run(access: &Access, args: &OutputArgs) -> Result<ExitCode, StatusError> {
    let client = ambit_kube::connect(access).await?;
    let findings = findings(&facts(&client).await?);
    print(args.output, &findings);
    let is_bad = findings.iter().any(|finding| finding.verdict == Verdict::Bad);
    Ok(if is_bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn facts(client: &Client) -> Result<Facts, StatusError> {
    let failed = |error: Error| StatusError::Api(Box::new(error));
    let version = client.apiserver_version().await.map_err(failed)?;
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await.map_err(failed)?;
    let daemon_sets =
        Api::<DaemonSet>::all(client.clone()).list(&ListParams::default()).await.map_err(failed)?;
    let groups = client.list_api_groups().await.map_err(failed)?;
    let mut forbidden = Vec::new();
    for (group, resource, verb) in NEEDED {
        if !may(client, group, resource, verb).await.map_err(failed)? {
            forbidden.push(format!("{verb} {resource}"));
        }
    }
    let overview = match groups.groups.iter().any(|group| group.name == "ambit.dev") {
        true => Some(status::overview(client).await?),
        false => None,
    };
    Ok(Facts {
        version: (version.major, version.minor),
        nodes: nodes.items,
        daemon_sets: daemon_sets.iter().filter_map(|set| set.metadata.name.clone()).collect(),
        groups: groups.groups.into_iter().map(|group| group.name).collect(),
        forbidden,
        overview: overview as Option<Overview>,
    })
}

/// What installing takes.
const NEEDED: [(&str, &str, &str); 5] = [
    ("", "namespaces", "create"),
    ("apiextensions.k8s.io", "customresourcedefinitions", "create"),
    ("rbac.authorization.k8s.io", "clusterroles", "create"),
    ("rbac.authorization.k8s.io", "clusterrolebindings", "create"),
    ("apps", "daemonsets", "create"),
];

async fn may(client: &Client, group: &str, resource: &str, verb: &str) -> Result<bool, Error> {
    let attributes = ResourceAttributes {
        group: Some(group.to_owned()),
        resource: Some(resource.to_owned()),
        verb: Some(verb.to_owned()),
        ..ResourceAttributes::default()
    };
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let answer = Api::all(client.clone()).create(&PostParams::default(), &review).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

#[expect(clippy::print_stdout, reason = "the command's output")]
fn print(output: Output, findings: &[Finding]) {
    match output {
        Output::Json => {
            let json = serde_json::to_string_pretty(findings);
            println!("{}", json.expect("texts serialize"));
        }
        Output::Table => {
            let row = |finding: &Finding| {
                let verdict = match finding.verdict {
                    Verdict::Good => "good",
                    Verdict::Warning => "warning",
                    Verdict::Bad => "BAD",
                };
                [verdict.to_owned(), finding.subject.to_owned(), finding.message.clone()]
            };
            print!("{}", table(["", "CHECK", "FOUND"], &findings.iter().map(row).collect::<Vec<_>>()));
        }
    }
}
