//! The list of enrolled namespaces that the agent keeps on the host: what the plugin goes by when the
//! agent is away.
//!
//! It is kept in the state directory, and where it is to survive a reboot in another. Who writes it
//! and when is in [`keeper`]; what follows from it in [`verdict`](super::verdict).

pub mod keeper;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ambit_mesh::snapshot::Snapshot;
use ambit_mesh::workload::TunnelProtocol;
use aws_lc_rs::digest::{Context, SHA256};
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};

use super::verdict::Listed;

/// The file's name in either directory.
pub const FILE: &str = "cni-list.json";

/// The version of the file. Another number: another meaning.
const VERSION: u32 = 1;

/// Octets that are read: a hundred thousand namespaces have less.
const LONGEST: u64 = 32 << 20;

/// The file's content.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    version: u32,
    enrolled_namespaces: BTreeSet<String>,
    /// Of everything else: finds truncation and corruption.
    sha256: String,
}

/// The namespaces whose pods must not start uncaptured: those that ask for the mesh, and those of
/// which this node has pods in it, whoever asked.
pub fn enrolled(snapshot: &Snapshot, node: &str) -> BTreeSet<Arc<str>> {
    let asked = snapshot.mesh().into_iter().flat_map(|mesh| mesh.enrolled_namespaces().iter().cloned());
    let pods = snapshot.pods_on(node).iter();
    let captured = pods.filter(|workload| workload.tunnel_protocol == TunnelProtocol::Hbone);
    asked.chain(captured.map(|workload| Arc::clone(&workload.namespace))).collect()
}

/// Reads the list from the first of these places that has a good one. It is damaged only if one of
/// them has one and none of them is good.
pub fn read(places: &[PathBuf]) -> Listed {
    let mut found = Listed::Nothing;
    for place in places {
        match read_file(place) {
            Ok(Some(namespaces)) => {
                return Listed::Namespaces(namespaces);
            }
            Ok(None) => {}
            Err(damage) => found = Listed::Damaged(damage.to_string()),
        }
    }
    found
}

/// Reads one file; `None` if there is none.
///
/// # Errors
/// When it cannot be read or trusted.
pub fn read_file(path: &Path) -> Result<Option<BTreeSet<String>>, Damage> {
    let unreadable = |source| Damage::Read { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.uid() != geteuid().as_raw() || metadata.mode() & OTHERS_WRITE != 0 {
        return Err(Damage::Rights { path: path.to_owned() });
    }
    let mut octets = Vec::new();
    file.take(LONGEST).read_to_end(&mut octets).map_err(unreadable)?;
    let damaged = || Damage::Content { path: path.to_owned() };
    let document: Document = serde_json::from_slice(&octets).map_err(|_| damaged())?;
    if document.version != VERSION || document.sha256 != digest(&document.enrolled_namespaces) {
        return Err(damaged());
    }
    Ok(Some(document.enrolled_namespaces))
}

/// Replaces a file: whenever the process or the machine stops, the old one is there or the new one,
/// whole.
///
/// # Errors
/// When it cannot be written.
pub fn write_file(path: &Path, enrolled_namespaces: &BTreeSet<Arc<str>>) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let enrolled_namespaces: BTreeSet<String> = enrolled_namespaces.iter().map(ToString::to_string).collect();
    let sha256 = digest(&enrolled_namespaces);
    let document = Document { version: VERSION, enrolled_namespaces, sha256 };
    let unfinished = path.with_extension("unfinished");
    // Left by a crash, perhaps with other rights than those asked for below.
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    file.write_all(&serde_json::to_vec_pretty(&document)?)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    File::open(directory)?.sync_all()
}

/// Each name ends with what no name holds.
fn digest(namespaces: &BTreeSet<String>) -> String {
    let mut context = Context::new(&SHA256);
    context.update(&VERSION.to_be_bytes());
    for namespace in namespaces {
        context.update(namespace.as_bytes());
        context.update(b"\n");
    }
    context.finish().as_ref().iter().map(|octet| format!("{octet:02x}")).collect()
}

/// Why a list that is there is not used.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// The system refuses.
    #[error("{} cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody else could have taken namespaces out of it.
    #[error("others than root own {} or may write to it", path.display())]
    Rights {
        /// The file.
        path: PathBuf,
    },
    /// It is not what was written.
    #[error("{} is damaged, or was written by another version of the agent", path.display())]
    Content {
        /// The file.
        path: PathBuf,
    },
}

/// Rights of group and others to write.
const OTHERS_WRITE: u32 = 0o022;

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use ambit_mesh::mesh::Mesh;
    use ambit_mesh::snapshot::{Change, State};
    use ambit_mesh::workload::{Workload, WorkloadUid};

    use super::*;

    fn names(names: &[&str]) -> BTreeSet<Arc<str>> {
        names.iter().map(|name| Arc::from(*name)).collect()
    }

    fn listed(names: &[&str]) -> Listed {
        Listed::Namespaces(names.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn namespaces_that_ask_and_those_of_captured_pods_are_listed() {
        let pod = |name: &str, namespace: &str, node: &str, tunnel_protocol| {
            Change::Workload(Arc::new(Workload {
                uid: WorkloadUid(format!("Kubernetes//Pod/{namespace}/{name}").into()),
                namespace: namespace.into(),
                node: node.into(),
                tunnel_protocol,
                ..crate::samples::workload(name)
            }))
        };
        let mut state = State::default();
        state.apply([
            Change::Mesh(Arc::new(Mesh::new(["shop".into(), "bank".into()], []))),
            pod("a", "opted-in", "n1", TunnelProtocol::Hbone),
            pod("b", "outside", "n1", TunnelProtocol::None),
            pod("c", "elsewhere", "n2", TunnelProtocol::Hbone),
        ]);
        assert_eq!(enrolled(&state.snapshot(), "n1"), names(&["bank", "opted-in", "shop"]));
    }

    #[test]
    fn what_is_written_is_read_from_the_first_place_that_has_it() {
        let directory = tempfile::tempdir().unwrap();
        let places = ["run", "var"].map(|name| directory.path().join(name).join(FILE));
        assert_eq!(read(&places), Listed::Nothing);
        write_file(&places[1], &names(&["shop"])).unwrap();
        assert_eq!(read(&places), listed(&["shop"]), "after a reboot");
        write_file(&places[0], &names(&["bank", "shop"])).unwrap();
        assert_eq!(read(&places), listed(&["bank", "shop"]));
        write_file(&places[0], &names(&[])).unwrap();
        assert_eq!(read(&places), listed(&[]), "nothing enrolled is not the same as nothing known");
    }

    #[test]
    fn a_damaged_list_is_neither_used_nor_taken_for_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        let damaged = || matches!(read(std::slice::from_ref(&path)), Listed::Damaged(_));
        write_file(&path, &names(&["bank", "shop"])).unwrap();
        let whole = fs::read_to_string(&path).unwrap();
        for length in (0..whole.trim_end().len()).step_by(5) {
            fs::write(&path, &whole[..length]).unwrap();
            assert!(damaged(), "cut off after {length}");
        }
        for (from, to) in [("\"shop\"", "\"shOp\""), ("\"version\": 1", "\"version\": 2"), ("\"bank\",", "")]
        {
            fs::write(&path, whole.replacen(from, to, 1)).unwrap();
            assert!(damaged(), "{from} became {to}");
        }
        fs::write(&path, &whole).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o620)).unwrap();
        assert!(damaged(), "others may write to it");
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read(std::slice::from_ref(&path)), listed(&["bank", "shop"]));

        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(damaged(), "it is something else");
        let good = directory.path().join("good");
        write_file(&good, &names(&["shop"])).unwrap();
        assert_eq!(read(&[path, good]), listed(&["shop"]), "the other one is good");
    }
}
