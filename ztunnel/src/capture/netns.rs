//! A pod's network namespace: holds it open and runs work inside it.
//!
//! What is done inside is the other modules' concern; nothing here waits or is asynchronous.

use std::cell::OnceCell;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;

use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{FsType, fstatfs};

/// A network namespace that is not this process's own, held open by a descriptor: it stays alive
/// and the same while this value lives, whatever happens to the path it was opened by.
#[derive(Debug)]
pub struct NetworkNamespace {
    descriptor: OwnedFd,
    id: NetworkNamespaceId,
    path: PathBuf,
}

/// What tells one network namespace of a node from another, as long as it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetworkNamespaceId {
    /// The device of the namespace file.
    pub device: u64,
    /// Its inode.
    pub inode: u64,
}

impl NetworkNamespace {
    /// Opens the namespace at `path`, such as `/run/netns/web` or `/proc/4711/ns/net`.
    ///
    /// # Errors
    /// When the path cannot be opened, is no namespace, or is the namespace this thread is in:
    /// capturing the node's own network would cut the node off.
    pub fn open(path: &Path) -> Result<Self, NamespaceError> {
        let open = |source| NamespaceError::Open { path: path.to_owned(), source };
        // Not blocking: a path that turns out to be a FIFO must not hang the agent.
        let file = File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)
            .map_err(open)?;
        Self::from_descriptor(file.into(), path)
    }

    /// The namespace of a descriptor that somebody handed over; `path` is for messages.
    ///
    /// # Errors
    /// When the descriptor is of something else, or of the namespace this thread is in.
    pub fn from_descriptor(descriptor: OwnedFd, path: &Path) -> Result<Self, NamespaceError> {
        let open = |source| NamespaceError::Open { path: path.to_owned(), source };
        let file = File::from(descriptor);
        let filesystem = fstatfs(&file).map_err(|errno| open(errno.into()))?.filesystem_type();
        if filesystem != FsType(libc::NSFS_MAGIC) {
            return Err(NamespaceError::NotANamespace { path: path.to_owned() });
        }
        let id = identify(&file).map_err(open)?;
        if id == home(|home| home.id)? {
            return Err(NamespaceError::Own { path: path.to_owned() });
        }
        Ok(Self { descriptor: file.into(), id, path: path.to_owned() })
    }

    /// Which namespace this is.
    pub fn id(&self) -> NetworkNamespaceId {
        self.id
    }

    /// The descriptor that holds it, for handing it to another process.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    /// The path it was opened by, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` on this thread with the pod's network: sockets made in it belong to the pod for
    /// as long as they live. The thread is back in its own network when this returns or unwinds.
    ///
    /// # Errors
    /// When the namespace cannot be entered: it takes CAP_SYS_ADMIN.
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> Result<T, NamespaceError> {
        home(|_| ())?;
        setns(&self.descriptor, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| NamespaceError::Enter { path: self.path.clone(), source: errno.into() })?;
        let _return = ReturnHome;
        Ok(work())
    }

    /// Whether the namespace knows IPv6 at all. An interface may still have it disabled.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn has_ipv6(&self) -> Result<bool, NamespaceError> {
        self.run(has_ipv6)
    }
}

/// The namespace that this thread is in while it is in no pod's: the agent's own.
pub(super) fn own() -> Result<NetworkNamespaceId, NamespaceError> {
    home(|home| home.id)
}

impl AsFd for NetworkNamespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Whether the namespace the thread is in knows IPv6 at all.
pub(super) fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6/conf/all").exists()
}

/// Why a network namespace could not be used.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// The path cannot be opened.
    #[error("cannot open network namespace {}: check that the path exists on this node and that the agent sees it", path.display())]
    Open {
        /// The path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The path is something else.
    #[error("{} is not a network namespace", path.display())]
    NotANamespace {
        /// The path.
        path: PathBuf,
    },
    /// The path is the agent's own namespace.
    #[error("{} is the network namespace of the agent itself, which is never captured", path.display())]
    Own {
        /// The path.
        path: PathBuf,
    },
    /// The kernel refuses to enter it.
    #[error("cannot enter network namespace {}: the agent needs CAP_SYS_ADMIN", path.display())]
    Enter {
        /// The path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The thread's own namespace cannot be found.
    #[error("cannot open this thread's own network namespace: check that /proc is mounted")]
    Home {
        /// The cause.
        source: io::Error,
    },
}

fn identify(file: &File) -> io::Result<NetworkNamespaceId> {
    let metadata = file.metadata()?;
    Ok(NetworkNamespaceId { device: metadata.dev(), inode: metadata.ino() })
}

/// The namespace a thread lives in when it is not inside [`NetworkNamespace::run`].
struct Home {
    descriptor: File,
    id: NetworkNamespaceId,
}

thread_local! {
    /// Opened once per thread: a path walk through /proc for each new socket would cost more than
    /// the two changes of namespace.
    static HOME: OnceCell<Home> = const { OnceCell::new() };
}

fn home<T>(read: impl FnOnce(&Home) -> T) -> Result<T, NamespaceError> {
    HOME.with(|cell| {
        if let Some(home) = cell.get() {
            return Ok(read(home));
        }
        let opened = open_home().map_err(|source| NamespaceError::Home { source })?;
        Ok(read(cell.get_or_init(|| opened)))
    })
}

fn open_home() -> io::Result<Home> {
    let descriptor = File::open("/proc/thread-self/ns/net")?;
    let id = identify(&descriptor)?;
    Ok(Home { descriptor, id })
}

/// Brings the thread back on drop, so that a panic inside cannot leave it in a pod.
struct ReturnHome;

impl Drop for ReturnHome {
    fn drop(&mut self) {
        let returned = home(|home| setns(&home.descriptor, CloneFlags::CLONE_NEWNET));
        if !matches!(returned, Ok(Ok(()))) {
            // Going on would serve one pod's connections in the network of another.
            tracing::error!(?returned, "cannot leave a pod's network namespace: the agent stops here");
            process::abort();
        }
    }
}
