//! Whether what `ambit explain` says of a request is what became of it.

use ambit::configuration::{Model, read_files};
use ambit::explain::answer::Answer;
use ambit::explain::{Question, Sender, SenderKind, explain};
use anyhow::{Context, Result, ensure};
use control::translate::{NetnsAnnotation, Settings};
use http::{HeaderName, HeaderValue};

use crate::mesh::Mesh;
use crate::pod::Pod;

/// Holds a request that `client` made against the explanation of the mesh's own directory. `status` is what
/// it read, `None` where its connection was refused or cut; `backend` is the workload that answered, if that
/// is known. An application is taken to answer with a status below 300.
///
/// # Errors
/// When the explanation says something else, with all of it.
pub fn check(
    mesh: &Mesh,
    client: &Pod,
    (method, url): (&str, &str),
    headers: &[(&str, &str)],
    status: Option<u16>,
    backend: Option<&str>,
) -> Result<()> {
    let answer = of(mesh, client, (method, url), headers)?;
    ensure!(
        answer.agrees_with(status, backend),
        "{method} {url} ended with {status:?} of {backend:?}, and the explanation is:\n{answer}"
    );
    Ok(())
}

/// The explanation of a request.
///
/// # Errors
/// When there is none.
pub fn of(
    mesh: &Mesh,
    client: &Pod,
    (method, url): (&str, &str),
    headers: &[(&str, &str)],
) -> Result<Answer> {
    let inputs = read_files(&[mesh.configuration().directory().to_owned()], false)?;
    let model = Model::new(inputs, settings());
    let object = client.object();
    let from = Sender { namespace: object.namespace, name: object.name, kind: SenderKind::Pod };
    let mut question = Question::new(from, url.parse().context("the URL of a request")?);
    question.method = method.parse().context("the method of a request")?;
    for (name, value) in headers {
        if name.eq_ignore_ascii_case("host") {
            question.authority = Some((*value).to_owned());
        } else {
            question.headers.push((name.parse::<HeaderName>()?, value.parse::<HeaderValue>()?));
        }
    }
    Ok(explain(&model, &question)?)
}

/// As [`Control`](crate::control::Control) runs with.
fn settings() -> Settings {
    Settings {
        cluster_id: "Kubernetes".into(),
        network: Default::default(),
        trust_domain: Default::default(),
        mesh_ranges: Vec::new(),
        netns_annotation: NetnsAnnotation::Honoured,
    }
}
