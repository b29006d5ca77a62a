//! The double of an API server in a process of its own: this program, called again.

use std::env;
use std::io::{BufRead, BufReader, Read, Write, stdin, stdout};
use std::process::{Child, ChildStdin, Command, Stdio};

use ambit_tests::kube_api::ApiServer;
use anyhow::{Context, Result};

/// First argument of that process.
pub(super) const SUITE: &str = "api-server";

/// A running double. It ends with us: its standard input does.
pub(super) struct ApiProcess {
    url: String,
    child: Child,
    input: Option<ChildStdin>,
}

impl ApiProcess {
    pub(super) fn start() -> Result<Self> {
        let mut child = Command::new(env::current_exe()?)
            .arg(SUITE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("the API server's double cannot be started")?;
        let mut url = String::new();
        let output = child.stdout.take().context("stdout was piped")?;
        BufReader::new(output).read_line(&mut url)?;
        let input = child.stdin.take();
        Ok(Self { url: url.trim().to_owned(), child, input })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for ApiProcess {
    fn drop(&mut self) {
        drop(self.input.take());
        // It has nothing left to say.
        let _ = self.child.wait();
    }
}

/// What that process does: serves until its standard input ends.
///
/// # Errors
/// When the double cannot be started.
pub(crate) fn serve() -> Result<()> {
    let server = ApiServer::start()?;
    writeln!(stdout(), "{}", server.url())?;
    stdout().flush()?;
    stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
