//! The authority in force: opened at start, and replaced when an administrator replaces its files.
//!
//! A set of files that does not work leaves the last good one in force; files of a plugged-in CA
//! are seldom replaced in one step, so a mixture in between is expected and not acted on.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::authority::{Authority, AuthorityError};
use super::files::{finish, plugged_in, prepare, read_if_present};
use super::own_root;
use super::parts::{Parts, ROOT_CERT};

/// How often a plugged-in CA's files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const ROOTS_MODE: u32 = 0o644;

/// Where the authority's key comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A root of control's own in the state directory.
    OwnRoot,
    /// A directory in Istio's layout (`root-cert.pem`, `ca-cert.pem`, `ca-key.pem`, `cert-chain.pem`)
    /// or in cert-manager's (`tls.crt`, `tls.key`, `ca.crt`).
    PluggedIn(PathBuf),
}

/// The authority in force, as long as this value lives.
#[derive(Debug)]
pub struct CurrentAuthority {
    current: watch::Receiver<Arc<Authority>>,
    watching: Option<JoinHandle<()>>,
}

impl CurrentAuthority {
    /// Opens the authority and writes its roots to `root-cert.pem` in `state`, which is what agents
    /// verify the control plane with. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the files are damaged; nothing is replaced then.
    pub fn open(origin: &Origin, state: &Path) -> Result<Self, AuthorityError> {
        match origin {
            Origin::OwnRoot => {
                let now = SystemTime::now();
                let authority = Authority::load(&own_root::open(state, now)?, now)?;
                write_roots(state, &authority)?;
                Ok(Self { current: watch::channel(Arc::new(authority)).1, watching: None })
            }
            Origin::PluggedIn(directory) => Self::open_directory(directory, Some(state)),
        }
    }

    /// Opens the authority that is plugged in at `directory`, and writes its roots to `state` if that
    /// is given. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the files are damaged.
    pub fn open_directory(directory: &Path, state: Option<&Path>) -> Result<Self, AuthorityError> {
        let (authority, source) = Source::open(directory, state, SystemTime::now())?;
        let (publish, current) = watch::channel(Arc::new(authority));
        Ok(Self::followed(current, tokio::spawn(source.watch(publish))))
    }

    /// The authority that `following` keeps up to date.
    pub(crate) fn followed(current: watch::Receiver<Arc<Authority>>, following: JoinHandle<()>) -> Self {
        Self { current, watching: Some(following) }
    }

    /// The authority, now and after each replacement. It stays readable when this value is dropped,
    /// but is not replaced any more.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Authority>> {
        self.current.clone()
    }
}

impl Drop for CurrentAuthority {
    fn drop(&mut self) {
        if let Some(watching) = &self.watching {
            watching.abort();
        }
    }
}

/// Files that were loaded once and may change.
struct Source {
    directory: PathBuf,
    state: Option<PathBuf>,
    seen: Parts,
}

impl Source {
    fn open(
        directory: &Path,
        state: Option<&Path>,
        now: SystemTime,
    ) -> Result<(Authority, Self), AuthorityError> {
        let seen = plugged_in(directory)?;
        let authority = Authority::load(&seen, now)?;
        let this = Self { directory: directory.to_owned(), state: state.map(Path::to_owned), seen };
        this.write_roots(&authority)?;
        Ok((authority, this))
    }

    async fn watch(mut self, publish: watch::Sender<Arc<Authority>>) {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            match self.look(SystemTime::now()) {
                Ok(None) => {}
                Ok(Some(authority)) => {
                    replace(&publish, authority, "the plugged-in CA");
                }
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    warn!(
                        error,
                        "the plugged-in CA's files changed and are not used; the last good ones stay in force"
                    );
                }
            }
        }
    }

    /// The authority that the files now make, if they have changed since they were last looked at.
    fn look(&mut self, now: SystemTime) -> Result<Option<Authority>, AuthorityError> {
        let parts = plugged_in(&self.directory)?;
        if parts == self.seen {
            return Ok(None);
        }
        self.seen = parts;
        let authority = Authority::load(&self.seen, now)?;
        self.write_roots(&authority)?;
        Ok(Some(authority))
    }

    fn write_roots(&self, authority: &Authority) -> Result<(), AuthorityError> {
        self.state.as_ref().map_or(Ok(()), |state| write_roots(state, authority))
    }
}

/// Puts an authority in force, and says so if that can cut anybody off.
pub(crate) fn replace(publish: &watch::Sender<Arc<Authority>>, next: Authority, what: &str) {
    if publish.borrow().shares_no_root_with(&next) {
        warn!(
            "{what} has other roots than before and none in common: until all certificates are renewed, \
             workloads with old and new ones do not trust each other; keep the old root in the bundle meanwhile"
        );
    }
    info!(authority = ?next, "{what} was replaced");
    publish.send_replace(Arc::new(next));
}

/// The file is made from the authority, so it follows it; nothing is read from it.
fn write_roots(state: &Path, authority: &Authority) -> Result<(), AuthorityError> {
    let path = state.join(ROOT_CERT);
    let roots = authority.roots_pem();
    if read_if_present(&path)?.as_deref() == Some(roots.as_bytes()) {
        return Ok(());
    }
    prepare(&path, roots.as_bytes(), ROOTS_MODE)?;
    finish(&path)
}

#[cfg(test)]
mod tests;
