//! Looks at the node's processes for the network namespaces of pods: a thread of its own, which
//! walks `/proc` when it is asked to.
//!
//! Who belongs to whom is decided in `cgroup` and `processes`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc as requests;
use std::thread;
use std::time::Instant;

use metrics::histogram;
use nix::fcntl::{OFlag, openat};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::Mode;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::capture::netns::{NetworkNamespace, NetworkNamespaceId};
use crate::pods::cgroup::{self, CgroupRoot};
use crate::pods::processes::{self, Process, Sight, sight};

/// Where a node's processes are seen.
#[derive(Clone, Debug)]
pub struct HostProc {
    /// The node's `/proc`, as the agent sees it.
    pub path: PathBuf,
    /// The cgroup that the kubelet puts pods below.
    pub cgroup_root: CgroupRoot,
    /// The network namespaces of the node and of the agent: no pod has them.
    pub not_pods: Vec<NetworkNamespaceId>,
}

/// What a look showed, with the namespaces of those pods that were asked for.
#[derive(Debug, Default)]
pub(super) struct Look {
    pub(super) sight: Sight,
    pub(super) opened: BTreeMap<Arc<str>, NetworkNamespace>,
}

/// The thread that looks.
pub(super) struct Scanner {
    requests: requests::Sender<BTreeSet<Arc<str>>>,
    looks: mpsc::UnboundedReceiver<Look>,
}

impl Scanner {
    /// Starts it. It ends when this value is dropped.
    pub(super) fn start(host_proc: HostProc) -> io::Result<Self> {
        let (requests, asked) = requests::channel::<BTreeSet<Arc<str>>>();
        // One look per request, and the manager asks for one at a time.
        let (answers, looks) = mpsc::unbounded_channel();
        thread::Builder::new().name("pod-scan".to_owned()).spawn(move || {
            host_proc.enter_cgroup_namespace();
            while let Ok(wanted) = asked.recv() {
                let started = Instant::now();
                let look = host_proc.look(&wanted);
                histogram!("ambit_pod_scan_duration_seconds").record(started.elapsed());
                debug!(pods = look.sight.pods.len(), opened = look.opened.len(), elapsed = ?started.elapsed(), "looked for pods");
                if answers.send(look).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { requests, looks })
    }

    /// Asks for a look, and for the namespaces of these pods. [`Scanner::look`] gives it.
    pub(super) fn ask(&self, wanted: BTreeSet<Arc<str>>) {
        if self.requests.send(wanted).is_err() {
            warn!("the thread that looks for pods has ended: running pods are not found any more");
        }
    }

    /// The look that was asked for. Dropping the future loses nothing.
    pub(super) async fn look(&mut self) -> Option<Look> {
        self.looks.recv().await
    }
}

impl HostProc {
    /// Has this thread see paths of cgroups as the node's first process does; the agent's container
    /// has a view of its own, in which those of others begin with `/..`.
    fn enter_cgroup_namespace(&self) {
        let path = self.path.join("1/ns/cgroup");
        let entered = File::open(&path)
            .and_then(|namespace| setns(namespace, CloneFlags::CLONE_NEWCGROUP).map_err(io::Error::from));
        if let Err(error) = entered {
            warn!(path = %path.display(), %error, "cannot see cgroups as the node does: pods are found only if the agent shares the node's view");
        }
    }

    /// Looks at every process. What ends meanwhile is passed over.
    fn look(&self, wanted: &BTreeSet<Arc<str>>) -> Look {
        let sight = sight(self.processes(), &self.not_pods);
        let mut opened = BTreeMap::new();
        for uid in wanted {
            let Some(process) = sight.pods.get(uid) else { continue };
            match self.open(process) {
                Ok(namespace) => drop(opened.insert(Arc::clone(uid), namespace)),
                // It is looked for again: it may have ended or moved.
                Err(error) => {
                    debug!(pid = process.id, pod = %uid, %error, "the process of a pod is not the one that was seen")
                }
            }
        }
        Look { sight, opened }
    }

    fn processes(&self) -> Vec<Process> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) => {
                warn!(path = %self.path.display(), %error, "cannot look for pods: is the node's /proc mounted there?");
                return Vec::new();
            }
        };
        let ids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        ids.filter_map(|id| self.process(id)).collect()
    }

    /// The process, if it is of a pod.
    fn process(&self, id: u32) -> Option<Process> {
        let directory = self.path.join(id.to_string());
        let pod_uid =
            cgroup::pod_uid(&fs::read_to_string(directory.join("cgroup")).ok()?, &self.cgroup_root)?;
        let started = processes::started(&fs::read_to_string(directory.join("stat")).ok()?)?;
        let namespace = fs::metadata(directory.join("ns/net")).ok()?;
        let namespace = NetworkNamespaceId { device: namespace.dev(), inode: namespace.ino() };
        Some(Process { id, started, pod_uid, namespace })
    }

    /// Opens the namespace of a process, and makes sure afterwards that the process still is what was
    /// seen: the directory's descriptor stays with the process and never becomes that of another one
    /// with its id.
    fn open(&self, process: &Process) -> Result<NetworkNamespace, OpenError> {
        let path = self.path.join(process.id.to_string());
        let directory = File::options().read(true).custom_flags(OFlag::O_DIRECTORY.bits()).open(&path)?;
        let at = |name: &str| -> io::Result<OwnedFd> {
            Ok(openat(
                &directory,
                name,
                OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK,
                Mode::empty(),
            )?)
        };
        let text = |name: &str| -> io::Result<String> {
            let mut text = String::new();
            File::from(at(name)?).read_to_string(&mut text).map(|_| text)
        };
        let namespace = NetworkNamespace::from_descriptor(at("ns/net")?, &path.join("ns/net"))?;
        let is_the_same = namespace.id() == process.namespace
            && processes::started(&text("stat")?) == Some(process.started)
            && cgroup::pod_uid(&text("cgroup")?, &self.cgroup_root).as_ref() == Some(&process.pod_uid);
        if is_the_same { Ok(namespace) } else { Err(OpenError::Changed) }
    }
}

/// Why a namespace that was seen is not opened.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    /// The process has ended, or may not be looked at.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What it is in is no namespace for pods.
    #[error(transparent)]
    Namespace(#[from] crate::capture::netns::NamespaceError),
    /// It is another process by now, or in another cgroup or namespace.
    #[error("it has changed since")]
    Changed,
}
