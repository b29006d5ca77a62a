//! The parts of control that reads a directory: everything it keeps is in the state directory.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Parts, RunError, Statuses};
use crate::ca::authentication::Proof;
use crate::ca::current::CurrentAuthority;
use crate::config::{DirectoryMode, Flags};
use crate::memory::Memory;
use crate::pipeline::Pipeline;
use crate::source::Source;
use crate::state::{self, Access, FileSet};
use crate::tokens::TokenFiles;

pub(super) fn prepare(flags: &Flags, mode: &DirectoryMode, pipeline: Pipeline) -> Result<Parts, RunError> {
    let state = mode.state.as_path();
    state::make_directory(state, Access::Public)?;
    let authority = CurrentAuthority::open(&flags.authority(), state)?;
    let (tokens, known_tokens) = watch::channel(Default::default());
    let (status_files, _) = FileSet::open(state.join("status"), Access::Public)?;
    let pipeline = pipeline
        .remembering(Memory::open(state.join("last-good"))?)
        .with_node_tokens(TokenFiles::open(state.join("tokens"))?, tokens);
    Ok(Parts {
        linger: Duration::ZERO,
        authority,
        proof: Proof::NodeTokens(known_tokens),
        pipeline,
        source: Source::Directory(mode.config.clone()),
        statuses: Statuses::Files(status_files),
        tasks: JoinSet::new(),
    })
}
