//! `ambit status`: which namespaces are in the mesh, and how every node's agent is.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use ambit_kube::{Access, ConnectError};
use http::Request;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::api::{Api, ListParams};
use kube::{Client, Error};

use crate::args::{Output, OutputArgs};
use crate::{NAMESPACE, PART_OF};

mod report;
mod samples;
mod view;

use report::Reports;
use samples::Samples;
pub use view::{Agent, Enrolled, Overview};

/// The label by which namespaces and pods enter the mesh.
const MODE_LABEL: &str = "istio.io/dataplane-mode";

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant is its message")]
pub enum StatusError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the API server does not answer")]
    Api(#[from] Box<Error>),
}

/// Prints the status.
///
/// # Errors
/// When the API server cannot be asked. An agent that does not answer is part of the status.
pub async fn run(access: &Access, args: &OutputArgs) -> Result<(), StatusError> {
    let client = ambit_kube::connect(access).await?;
    print(args.output, &overview(&client).await?);
    Ok(())
}

/// Asks the API server, and through it every agent, how things are.
///
/// # Errors
/// When the API server does not answer.
pub async fn overview(client: &Client) -> Result<Overview, StatusError> {
    let everything = ListParams::default();
    let ours = ListParams::default().labels(PART_OF);
    let namespaces = list::<Namespace>(Api::all(client.clone()), &everything).await?;
    let nodes = list::<Node>(Api::all(client.clone()), &everything).await?;
    let pods = list::<Pod>(Api::all(client.clone()), &everything).await?;
    let own = list::<Pod>(Api::namespaced(client.clone(), NAMESPACE), &ours).await?;
    let reports = Reports::read(client).await.map_err(Box::new)?;
    let mut samples = BTreeMap::new();
    for pod in own.iter().filter(|pod| view::is_agent(pod)) {
        let name = pod.metadata.name.clone().unwrap_or_default();
        if let Some(found) = scrape(client, &name).await {
            samples.insert(name, found);
        }
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Overview::new(&view::Facts {
        namespaces: &namespaces,
        nodes: &nodes,
        pods: &pods,
        own: &own,
        samples: &samples,
        reports: &reports,
        now,
    }))
}

async fn list<K>(api: Api<K>, params: &ListParams) -> Result<Vec<K>, StatusError>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    Ok(api.list(params).await.map_err(Box::new)?.items)
}

/// The metrics of an agent, through the API server. An agent that does not answer has none.
async fn scrape(client: &Client, pod: &str) -> Option<Samples> {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}:15020/proxy/metrics");
    let request = Request::get(path).body(Vec::new()).ok()?;
    let text = client.request_text(request).await.ok()?;
    Some(Samples::parse(&text))
}

#[expect(clippy::print_stdout, reason = "the command's output")]
fn print(output: Output, overview: &Overview) {
    match output {
        Output::Table => print!("{overview}"),
        Output::Json => {
            let json = serde_json::to_string_pretty(overview);
            println!("{}", json.expect("texts, numbers and lists serialize"));
        }
    }
}
