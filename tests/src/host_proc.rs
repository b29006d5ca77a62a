//! What an agent sees as its node's `/proc`: a directory in which a scenario puts processes, with the
//! cgroups that a kubelet and a runtime would have given them.
//!
//! A cgroup outlives whatever made it, so that real ones would be left behind when a scenario is
//! killed. The namespaces are real.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::namespace::Namespace;
use crate::sandbox::WORK;

/// The `/proc` of a node.
#[derive(Debug)]
pub struct HostProc(PathBuf);

impl HostProc {
    /// Makes that of `node`, whose own network is `namespace`, with its first process.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn create(node: &str, namespace: &Namespace) -> Result<Self> {
        let proc = Self(Self::directory(node));
        proc.start(1, "0::/init.scope", namespace)?;
        symlink("/proc/1/ns/cgroup", proc.0.join("1/ns/cgroup"))?;
        Ok(proc)
    }

    /// Where the agent of `node` looks.
    pub fn directory(node: &str) -> PathBuf {
        Path::new(WORK).join(format!("proc-{node}"))
    }

    /// Puts a process there, older than those with a greater id.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn start(&self, id: u32, cgroup: &str, namespace: &Namespace) -> Result<()> {
        let aside = self.0.join(format!(".{id}"));
        fs::create_dir_all(aside.join("ns")).with_context(|| aside.display().to_string())?;
        fs::write(aside.join("cgroup"), format!("{cgroup}\n"))?;
        let fields = "S 1 1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0";
        fs::write(aside.join("stat"), format!("{id} (a process) {fields} {id} 0 0\n"))?;
        symlink(namespace.path(), aside.join("ns/net"))?;
        fs::rename(aside, self.0.join(id.to_string())).map_err(Into::into)
    }

    /// Takes a process away.
    ///
    /// # Errors
    /// When it is not there.
    pub fn end(&self, id: u32) -> Result<()> {
        fs::remove_dir_all(self.0.join(id.to_string())).map_err(Into::into)
    }
}

/// The cgroup of a container of a pod, as systemd names it.
pub fn cgroup(pod_uid: &str) -> String {
    let pod = pod_uid.replace('-', "_");
    format!(
        "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{pod}.slice/cri-containerd-0a1b.scope"
    )
}
