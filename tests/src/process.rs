//! Programs that run inside the sandbox.

use std::ffi::OsStr;
use std::fmt::Debug;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::log::Log;
use crate::wait;

/// What the programs under test log: everything of ours that is not per packet.
pub(crate) const LOG_LEVELS: &str =
    "info,ztunnel=debug,control=debug,ambit_hbone=debug,ambit_identity=debug,ambit_xds=debug";

/// A program that runs until it is told to stop. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Mutex<Child>,
    log: Arc<Log>,
}

impl Process {
    /// Starts `command` and keeps what it prints under `name`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: impl Into<String>, command: &mut Command) -> Result<Self> {
        let name = name.into();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("{name} cannot be started: {command:?}"))?;
        let log = Log::open(name.clone());
        log.follow(child.stdout.take().context("stdout was piped")?);
        log.follow(child.stderr.take().context("stderr was piped")?);
        Ok(Self { name, child: Mutex::new(child), log })
    }

    /// Starts `command` and has it write what it prints to `file`, so that a program that prints much
    /// costs this one nothing.
    ///
    /// # Errors
    /// When it cannot be started or the file cannot be made.
    pub fn start_writing_to(file: &Path, name: impl Into<String>, command: &mut Command) -> Result<Self> {
        let name = name.into();
        let output = File::create(file).with_context(|| file.display().to_string())?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("{name} cannot be started: {command:?}"))?;
        let log = Log::open(format!("{name}, which writes to {}", file.display()));
        Ok(Self { name, child: Mutex::new(child), log })
    }

    /// What it printed.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Its process id in the sandbox.
    pub fn pid(&self) -> u32 {
        self.child().id()
    }

    /// Whether it still runs.
    pub fn is_running(&self) -> bool {
        matches!(self.child().try_wait(), Ok(None))
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid())?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("{signal} to {}", self.name))
    }

    /// Ends it at once, as a crash would.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn kill(&self) -> Result<()> {
        let mut child = self.child();
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Waits for it to end by itself.
    ///
    /// # Errors
    /// When it still runs after `within`.
    pub fn wait_for_end(&self, within: Duration) -> Result<ExitStatus> {
        let what = format!("{} to end", self.name);
        wait::until(what, within, || self.child().try_wait()?.ok_or_else(|| anyhow!("it runs")))
            .map(|(status, _)| status)
    }

    /// The number of file descriptors it holds.
    ///
    /// # Errors
    /// When it is gone.
    pub fn open_descriptors(&self) -> Result<usize> {
        let directory = format!("/proc/{}/fd", self.pid());
        Ok(std::fs::read_dir(&directory).with_context(|| directory.clone())?.count())
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nobody is left to tell, and the sandbox ends it anyway.
        let _ = self.kill();
    }
}

/// Runs a command to its end and returns what it printed.
///
/// # Errors
/// When it cannot be started or fails, with what it said.
pub fn run<A: AsRef<OsStr> + Debug>(program: &str, arguments: impl IntoIterator<Item = A>) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments);
    succeed(&mut command)
}

/// Runs a command to its end and returns what it printed.
///
/// # Errors
/// When it cannot be started or fails, with what it said.
pub fn succeed(command: &mut Command) -> Result<String> {
    let Output { status, stdout, stderr } =
        command.stdin(Stdio::null()).output().with_context(|| format!("{command:?} cannot be started"))?;
    if !status.success() {
        let said = String::from_utf8_lossy(&stderr);
        bail!("{command:?} ended with {status}: {}{said}", String::from_utf8_lossy(&stdout));
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}
