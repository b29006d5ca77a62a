//! The marks by which the rules of a pod know the agent's own packets, and where they are kept.
//!
//! The rules themselves are in [`rules`](super::rules).

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::num::NonZeroU32;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The mark of packets that go back to the agent's sockets inside the pod: "ambi". It is no
/// secret, since anybody in the pod can list the routing rule that names it, and it opens nothing:
/// a packet that carries it is delivered inside the pod.
pub const REROUTE_MARK: u32 = 0x616d_6269;

/// The marks of one pod.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    socket: NonZeroU32,
}

impl Marks {
    /// Draws new marks.
    pub fn random(rng: &mut impl rand::Rng) -> Self {
        loop {
            let drawn = NonZeroU32::new(rng.random()).filter(|mark| mark.get() != REROUTE_MARK);
            if let Some(socket) = drawn {
                return Self { socket };
            }
        }
    }

    /// The mark of the agent's own sockets in this pod. Whoever knows it and has CAP_NET_RAW
    /// passes for the agent.
    pub fn socket(self) -> NonZeroU32 {
        self.socket
    }

    fn to_text(self) -> String {
        format!("{:08x}\n", self.socket)
    }

    fn from_text(text: &str) -> Option<Self> {
        let mark = u32::from_str_radix(text.strip_suffix('\n')?, 16).ok()?;
        Some(Self { socket: NonZeroU32::new(mark).filter(|mark| mark.get() != REROUTE_MARK)? })
    }
}

/// Does not show the mark: it is a secret of the agent.
impl fmt::Debug for Marks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Marks").finish_non_exhaustive()
    }
}

/// The marks of the pods of this node, one file each in a directory that only root reads. A
/// restarted agent finds in it what the rules in the pods say, so that it need not change them.
#[derive(Clone, Debug)]
pub struct MarkStore {
    directory: PathBuf,
}

impl MarkStore {
    /// Opens, and makes where it is absent, `marks` in the agent's state directory.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn open(state: &Path) -> Result<Self, MarkStoreError> {
        let directory = state.join("marks");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .map_err(|source| MarkStoreError { path: directory.clone(), source })?;
        Ok(Self { directory })
    }

    /// The marks of pod `uid`: those kept, or new ones, kept from now on. A file that is not
    /// readable as marks counts as lost, and the pod gets new ones.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn load_or_create(&self, uid: &str, rng: &mut impl rand::Rng) -> Result<Marks, MarkStoreError> {
        let path = self.path(uid);
        let failed = |source| MarkStoreError { path: path.clone(), source };
        let kept = match fs::read(&path) {
            Ok(bytes) => str::from_utf8(&bytes).ok().and_then(Marks::from_text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        if let Some(marks) = kept {
            return Ok(marks);
        }
        let marks = Marks::random(rng);
        replace(&path, marks.to_text().as_bytes()).map_err(failed)?;
        Ok(marks)
    }

    /// Forgets the marks of pod `uid`, when it has left the mesh.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn forget(&self, uid: &str) -> Result<(), MarkStoreError> {
        let path = self.path(uid);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(MarkStoreError { path, source }),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// The UID is written so that no pod's UID can name a file outside the directory, nor that of
    /// another pod.
    fn path(&self, uid: &str) -> PathBuf {
        let mut name = String::from("pod-");
        for byte in uid.bytes() {
            if byte.is_ascii_alphanumeric() || byte == b'-' {
                name.push(char::from(byte));
            } else {
                name.push_str(&format!("_{byte:02x}"));
            }
        }
        self.directory.join(name)
    }
}

/// The marks of a pod cannot be kept.
#[derive(Debug, thiserror::Error)]
#[error("cannot keep the marks of a pod in {}: check that the state directory is writable", path.display())]
pub struct MarkStoreError {
    /// The file or directory.
    pub path: PathBuf,
    /// The cause.
    pub source: io::Error,
}

/// Puts a whole new file in place of the old one: a crash leaves either, never a part.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("new");
    // Left by a crash, perhaps with other permissions than those asked for below.
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&draft, path)
}

#[cfg(test)]
mod tests;
