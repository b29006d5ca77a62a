//! The control service under test.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::http;
use crate::mesh::Settings;
use crate::mesh::fabric::CONTROL;
use crate::namespace::Namespace;
use crate::process::{LOG_LEVELS, Process};
use crate::sandbox::{self, WORK};
use crate::wait::{self, SOON};

/// Control in a network namespace of its own on the fabric. It may be down.
#[derive(Debug)]
pub struct Control {
    namespace: Arc<Namespace>,
    configuration: PathBuf,
    settings: Mutex<Settings>,
    process: Mutex<Option<Process>>,
}

impl Control {
    /// Control that is not started so far.
    pub fn new(namespace: Arc<Namespace>, configuration: &Path, settings: Settings) -> Self {
        Self {
            namespace,
            configuration: configuration.to_owned(),
            settings: Mutex::new(settings),
            process: Mutex::default(),
        }
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn start(&self) -> Result<()> {
        self.start_within(SOON)
    }

    /// The same for a configuration that takes long to read.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn start_within(&self, patience: Duration) -> Result<()> {
        let settings = lock(&self.settings).clone();
        let mut command = self.namespace.command(sandbox::program("control"));
        let life = format!("{}s", settings.certificate_life.as_secs());
        command
            .arg("--config")
            .arg(&self.configuration)
            .arg("--state")
            .arg(state_directory())
            .args(["--xds-address", "[::]:15012", "--xds-name", &CONTROL.to_string()])
            .args(["--default-certificate-ttl", &life, "--max-certificate-ttl", &life])
            .args(["--min-certificate-ttl", "1s", "--allow-netns-annotation"])
            .args(["--log-format", "json", "--log-level", LOG_LEVELS]);
        if let Some(directory) = &settings.ca_directory {
            command.arg("--ca-dir").arg(directory);
        }
        let process = Process::start("control", &mut command)?;
        wait::until("control to be ready", patience, || {
            ensure!(process.is_running(), "it has ended");
            http::get(&self.namespace, 15021, "/healthz/ready")
        })?;
        *lock(&self.process) = Some(process);
        Ok(())
    }

    /// Ends it as a crash would.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&self) -> Result<()> {
        lock(&self.process).take().context("control does not run")?.kill()
    }

    /// Its process id in the sandbox.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pid(&self) -> Result<u32> {
        lock(&self.process).as_ref().map(Process::pid).context("control does not run")
    }

    /// Changes the settings that the next start uses.
    pub fn change_settings(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut lock(&self.settings));
    }

    /// Its network.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The root certificate that workloads trust, as PEM.
    ///
    /// # Errors
    /// When control has not made it.
    pub fn root_certificate(&self) -> Result<String> {
        let path = root_certificate_path();
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    }

    /// What it publishes about itself on an admin path.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn admin(&self, path: &str) -> Result<Value> {
        let text = http::get(&self.namespace, 15000, path)?;
        serde_json::from_str(&text).with_context(|| format!("{path} of control is not JSON: {text}"))
    }

    /// Everything it has written below `status/`, file by file.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn statuses(&self) -> Result<Vec<String>> {
        let mut texts = Vec::new();
        read_files(&state_directory().join("status"), &mut texts)?;
        Ok(texts)
    }

    /// Waits for a line of its log, from the first one on.
    ///
    /// # Errors
    /// When none comes, or control does not run.
    pub fn wait_for_log(&self, within: Duration, matches: impl Fn(&str) -> bool) -> Result<String> {
        lock(&self.process).as_ref().context("control does not run")?.log().wait_from(0, within, matches)
    }
}

/// Where control keeps its root, tokens and statuses.
pub fn state_directory() -> PathBuf {
    Path::new(WORK).join("control")
}

/// The root certificate that control serves with and workloads trust.
pub fn root_certificate_path() -> PathBuf {
    state_directory().join("root-cert.pem")
}

/// The bearer token of a node.
pub fn token_path(node: &str) -> PathBuf {
    state_directory().join("tokens").join(node)
}

/// The bearer token of a waypoint's pod.
pub fn waypoint_token_path(namespace: &str, pod: &str) -> PathBuf {
    state_directory().join("tokens").join(format!("waypoint~{namespace}~{pod}"))
}

fn read_files(directory: &Path, texts: &mut Vec<String>) -> Result<()> {
    let Ok(entries) = fs::read_dir(directory) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            read_files(&path, texts)?;
        } else if let Ok(text) = fs::read_to_string(&path) {
            // A file that control replaces at this moment is read at the next look.
            texts.push(text);
        }
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
