//! Connections that are open and do nothing.

use std::env;
use std::process::Command;
use std::time::Duration;

use ambit_tests::pod::Pod;
use ambit_tests::process::Process;
use ambit_tests::sandbox;
use ambit_tests::wait::SOON;
use anyhow::{Context, Result};

use super::hold::{LISTENING, READY};
use crate::lane::Lane;

/// Where the server's end accepts them.
const PORT: u16 = 9000;

/// How long all of them may take to open.
const LIMIT: Duration = Duration::from_secs(120);

/// Both ends of open connections. They close with this value.
#[must_use = "the connections close when this is dropped"]
pub(crate) struct Idle {
    _client: Process,
    _server: Process,
}

/// Opens so many, each with an octet through it.
///
/// # Errors
/// When one does not open.
pub(crate) fn open(lane: &Lane, count: u32) -> Result<Idle> {
    let count = count.to_string();
    let start = |pod: &Pod, how: &[&str]| {
        let mut command = this_program(pod)?;
        command.arg("hold").args(how).args(["--count", &count]);
        Process::start(format!("idle connections of {}", pod.namespace().name()), &mut command)
    };
    let server = start(&lane.server, &["--listen", &PORT.to_string()])?;
    server.log().wait_from(0, SOON, |line| line == LISTENING)?;
    let client = start(&lane.client, &["--connect", &lane.server.at(PORT).to_string()])?;
    for end in [&client, &server] {
        end.log().wait_from(0, LIMIT, |line| line == READY)?;
    }
    Ok(Idle { _client: client, _server: server })
}

/// This very program, where the sandbox has it.
fn this_program(pod: &Pod) -> Result<Command> {
    let own = env::current_exe().context("the path of this program")?;
    let name = own.file_name().and_then(|name| name.to_str()).context("the name of this program")?;
    Ok(pod.namespace().command(sandbox::program(name)))
}
