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
use super::files::{AuthorityFiles, Contents, finish, prepare, read_if_present};
use super::own_root;

/// How often a plugged-in CA's files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const ROOTS_MODE: u32 = 0o644;

/// Where the authority's key comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A root of control's own in the state directory.
    OwnRoot,
    /// A directory with `root-cert.pem`, `ca-cert.pem`, `ca-key.pem` and `cert-chain.pem`.
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
        let now = SystemTime::now();
        match origin {
            Origin::OwnRoot => {
                let (authority, _) = Source::open(own_root::ensure(state, now)?, state, now)?;
                Ok(Self { current: watch::channel(Arc::new(authority)).1, watching: None })
            }
            Origin::PluggedIn(directory) => {
                let (authority, source) = Source::open(AuthorityFiles::plugged_in(directory), state, now)?;
                let (publish, current) = watch::channel(Arc::new(authority));
                Ok(Self { current, watching: Some(tokio::spawn(source.watch(publish))) })
            }
        }
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
    files: AuthorityFiles,
    state: PathBuf,
    seen: Contents,
}

impl Source {
    fn open(
        files: AuthorityFiles,
        state: &Path,
        now: SystemTime,
    ) -> Result<(Authority, Self), AuthorityError> {
        let seen = files.read()?;
        let authority = Authority::load(&files, &seen, now)?;
        write_roots(state, &authority)?;
        Ok((authority, Self { files, state: state.to_owned(), seen }))
    }

    async fn watch(mut self, publish: watch::Sender<Arc<Authority>>) {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            match self.look(SystemTime::now()) {
                Ok(None) => {}
                Ok(Some(authority)) => {
                    info!(?authority, "the plugged-in CA was replaced");
                    publish.send_replace(Arc::new(authority));
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
        let contents = self.files.read()?;
        if contents == self.seen {
            return Ok(None);
        }
        self.seen = contents;
        let authority = Authority::load(&self.files, &self.seen, now)?;
        write_roots(&self.state, &authority)?;
        Ok(Some(authority))
    }
}

/// The file is made from the authority, so it follows it; nothing is read from it.
fn write_roots(state: &Path, authority: &Authority) -> Result<(), AuthorityError> {
    let path = state.join("root-cert.pem");
    let roots = authority.roots_pem();
    if read_if_present(&path)?.as_deref() == Some(roots.as_bytes()) {
        return Ok(());
    }
    prepare(&path, roots.as_bytes(), ROOTS_MODE)?;
    finish(&path)
}

#[cfg(test)]
mod tests;
