//! A place in which nothing can be left behind.
//!
//! A scenario runs in a mount, network and PID namespace of its own, with a tmpfs on every
//! directory it writes to. Its first process dies with the process that started it, and the kernel
//! ends everything else with it: no namespace, process, rule or file outlives a run, whatever ended
//! it.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use nix::mount::{MsFlags, mount};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::Uid;
use serde::de::DeserializeOwned;

use crate::process;

/// Where the programs under test are found inside.
pub const PROGRAMS: &str = "/run/programs";
/// Where Envoy is found inside.
const ENVOY: &str = "/run/envoy";
/// Where the harness keeps its files inside.
pub const WORK: &str = "/run/ambit-tests";

/// Ties this process to the one that started it, so that a runner that is killed takes its
/// scenarios along.
///
/// # Errors
/// When the kernel refuses.
pub fn die_with_parent() -> Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL).context("cannot be tied to the parent process")
}

/// The command that runs this very program with `arguments` inside a new sandbox.
///
/// # Errors
/// When not root, or when a program under test has not been built.
pub fn command<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Result<Command> {
    if !Uid::effective().is_root() {
        bail!("the scenarios make network namespaces and need root: run scripts/test as root");
    }
    programs_directory()?;
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--"])
        .args(["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--"])
        .arg(env::current_exe().context("the path of this program")?)
        .args(arguments);
    Ok(command)
}

/// Runs this very program with `arguments` inside a new sandbox, and reads what it writes to standard output
/// as JSON.
///
/// # Errors
/// When it cannot be started, fails, or writes something else; `what` says which run it was.
pub fn outcome_of<T: DeserializeOwned, A: AsRef<OsStr>>(
    what: &str,
    arguments: impl IntoIterator<Item = A>,
) -> Result<T> {
    let output = command(arguments)?
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("the sandbox cannot be started")?;
    ensure!(output.status.success(), "{what} failed: {}", output.status);
    serde_json::from_slice(&output.stdout).with_context(|| format!("what {what} found out"))
}

/// What the inside knows of the outside.
#[derive(Clone, Copy, Debug)]
pub struct Sandbox {
    /// The id of the sandbox's first process, as the outside sees it: what `nsenter --target`
    /// takes.
    pub outer_pid: u32,
}

/// Makes the new namespaces a place to work in. Called once, by their first process.
///
/// # Errors
/// When a mount fails, which says which.
pub fn furnish() -> Result<Sandbox> {
    let programs = programs_directory()?;
    let envoy = envoy_directory();
    // The old /proc still counts processes as the outside does.
    let outer_pid = fs::read_link("/proc/self")?.to_string_lossy().parse().context("/proc/self")?;
    mount_new("proc", Path::new("/proc"))?;
    mount_new("tmpfs", Path::new("/run"))?;
    for directory in [PROGRAMS, ENVOY, WORK, "/run/netns", "/run/scratch"] {
        fs::create_dir_all(directory).with_context(|| format!("{directory} cannot be made"))?;
    }
    // Bound before /tmp is covered: the build may be under it.
    bind(&programs, Path::new(PROGRAMS))?;
    if let Some(envoy) = envoy {
        bind(&envoy, Path::new(ENVOY))?;
    }
    for directory in ["/tmp", "/dev/shm"] {
        mount_new("tmpfs", Path::new(directory))?;
    }
    env::set_current_dir("/")?;
    raise_descriptor_limit()?;
    process::run("ip", ["link", "set", "lo", "up"])?;
    Ok(Sandbox { outer_pid })
}

/// The path of a program under test, inside.
pub fn program(name: &str) -> PathBuf {
    Path::new(PROGRAMS).join(name)
}

/// The path of a program under test where cargo put it, for what runs outside of a sandbox.
///
/// # Errors
/// When it has not been built.
pub fn built_program(name: &str) -> Result<PathBuf> {
    Ok(programs_directory()?.join(name))
}

/// The path of Envoy, inside.
///
/// # Errors
/// When it is not installed, with the command that installs it.
pub fn envoy() -> Result<PathBuf> {
    let path = Path::new(ENVOY).join("envoy");
    if !path.exists() {
        bail!("Envoy is not installed: run scripts/test, which installs it, or set AMBIT_TEST_ENVOY_DIR");
    }
    Ok(path)
}

/// Where cargo put the programs under test: beside this one, or above its `deps`.
fn programs_directory() -> Result<PathBuf> {
    let own = env::current_exe().context("the path of this program")?;
    let mut directory = own.parent().context("this program has no directory")?;
    if directory.file_name() == Some(OsStr::new("deps")) {
        directory = directory.parent().context("`deps` has no parent")?;
    }
    for program in ["ztunnel", "control"] {
        if !directory.join(program).exists() {
            bail!(
                "{} is missing: run `cargo build -p ztunnel -p control` first",
                directory.join(program).display()
            );
        }
    }
    Ok(directory.to_owned())
}

/// Where `scripts/lib/needs` installs Envoy, if it did.
fn envoy_directory() -> Option<PathBuf> {
    let installed = || {
        let cache = env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")))?;
        Some(cache.join("ambit/envoy"))
    };
    let directory = env::var_os("AMBIT_TEST_ENVOY_DIR").map(PathBuf::from).or_else(installed)?;
    directory.join("envoy").exists().then_some(directory)
}

fn mount_new(kind: &str, target: &Path) -> Result<()> {
    mount(Some(kind), target, Some(kind), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, None::<&str>)
        .with_context(|| format!("{kind} cannot be mounted on {}", target.display()))
}

fn bind(source: &Path, target: &Path) -> Result<()> {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .with_context(|| format!("{} cannot be bound to {}", source.display(), target.display()))
}

/// A thousand connections at once have their both ends in this process.
fn raise_descriptor_limit() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("the limit of open files cannot be raised")
}
