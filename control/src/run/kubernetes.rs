//! The parts of control that reads an API server. What it keeps, the API server keeps.

use ambit_runtime::config::InvalidConfig;
use tokio::sync::watch;

use super::{Parts, RunError};
use crate::ca::current::CurrentAuthority;
use crate::config::{Flags, KubernetesMode};
use crate::memory::Memory;
use crate::pipeline::Pipeline;
use crate::source::Source;
use crate::state::{self, Access, FileSet};

pub(super) async fn prepare(
    flags: &Flags,
    mode: &KubernetesMode,
    pipeline: Pipeline,
) -> Result<Parts, RunError> {
    // Bad credentials are an error of start; an API server that is away is waited for.
    let _client = ambit_kube::connect(&mode.access).await?;
    let Some(state) = &mode.state else {
        let problem = "--state: the certificate authority needs a directory".to_owned();
        return Err(InvalidConfig { problems: vec![problem] }.into());
    };
    state::make_directory(state, Access::Public)?;
    let (status_files, _) = FileSet::open(state.join("status"), Access::Public)?;
    Ok(Parts {
        authority: CurrentAuthority::open(&flags.authority(), state)?,
        // Nobody has a token of a file here.
        tokens: watch::channel(Default::default()).1,
        pipeline: pipeline.remembering(Memory::open(state.join("last-good"))?),
        source: Source::Kubernetes(mode.access.clone()),
        status_files: Some(status_files),
    })
}
