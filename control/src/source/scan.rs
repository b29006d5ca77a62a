//! Reads the YAML files of a directory.
//!
//! It goes into subdirectories, and skips names that begin with a dot: editors' temporary files, and
//! the `..data` directories through which a ConfigMap is swapped. A link to a file is followed.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Origin, SourceProblem, SourceReason};

/// Larger files are refused: no single object comes near it.
const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;

/// Directories below each other.
const MAX_DEPTH: usize = 16;

/// A file that changed this shortly before it was read may change again within the granularity of
/// its time stamp: it is read again the next time.
const RACY: Duration = Duration::from_millis(100);

/// Reads a directory again and again, and only what changed since.
#[derive(Debug)]
pub struct Scanner {
    root: PathBuf,
    known: BTreeMap<Arc<str>, Signature>,
}

/// What one look at the directory found.
#[derive(Debug, Default)]
pub struct Scan {
    /// The text of every file, by path relative to the directory; `None` where it did not change.
    pub texts: BTreeMap<Arc<str>, Option<String>>,
    /// What exists but cannot be read.
    pub unreadable: Vec<SourceProblem>,
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Signature {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Why a path could not be read.
#[derive(Debug, thiserror::Error)]
enum ScanError {
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("is larger than {} MiB", MAX_FILE_BYTES >> 20)]
    TooLarge,
    #[error("is not UTF-8 from octet {0} on")]
    NotUtf8(usize),
    #[error("is a link to a directory, which is not followed")]
    LinkToDirectory,
    #[error("is more than {MAX_DEPTH} directories deep")]
    TooDeep,
}

impl Scanner {
    /// Reads `root`.
    pub fn new(root: PathBuf) -> Self {
        Self { root, known: BTreeMap::new() }
    }

    /// Looks at the directory once.
    pub fn scan(&mut self) -> Scan {
        let mut scan = Scan::default();
        let root = self.root.clone();
        self.directory(&root, 0, &mut scan);
        self.known.retain(|path, _| scan.texts.contains_key(path));
        scan
    }

    /// Forgets that a file was read, so that the next look reads it again.
    pub fn forget(&mut self, path: &str) {
        self.known.remove(path);
    }

    fn directory(&mut self, directory: &Path, depth: usize, scan: &mut Scan) {
        let entries = match list(directory, depth) {
            Ok(entries) => entries,
            Err(error) => return scan.unreadable.push(self.problem(directory, &error)),
        };
        for path in entries {
            if let Err(error) = self.entry(&path, depth, scan) {
                // Gone between listing and reading is the same as gone before.
                if path.symlink_metadata().is_ok() {
                    scan.unreadable.push(self.problem(&path, &error));
                }
            }
        }
    }

    fn entry(&mut self, path: &Path, depth: usize, scan: &mut Scan) -> Result<(), ScanError> {
        let is_link = path.symlink_metadata()?.is_symlink();
        let metadata = match fs::metadata(path) {
            // A dangling link matters only where it stands for a file that would be read.
            Err(_) if is_link && !is_yaml(path) => return Ok(()),
            metadata => metadata?,
        };
        if metadata.is_dir() && is_link {
            return Err(ScanError::LinkToDirectory);
        }
        if metadata.is_dir() {
            self.directory(path, depth + 1, scan);
        } else if metadata.is_file() && is_yaml(path) {
            let name = self.name(path);
            let text = self.file(path, &name)?;
            scan.texts.insert(name, text);
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, name: &Arc<str>) -> Result<Option<String>, ScanError> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        let signature = Signature::of(&metadata);
        if self.known.get(name) == Some(&signature) {
            return Ok(None);
        }
        let text = read(file)?;
        if is_racy(&metadata) {
            self.known.remove(name);
        } else {
            self.known.insert(name.clone(), signature);
        }
        Ok(Some(text))
    }

    fn problem(&self, path: &Path, error: &ScanError) -> SourceProblem {
        SourceProblem {
            origin: Origin { file: self.name(path), line: 0 },
            reason: SourceReason::FileUnreadable,
            message: format!("{error}: what was read from it before stays in force"),
        }
    }

    /// The path relative to the directory; `.` for the directory itself.
    fn name(&self, path: &Path) -> Arc<str> {
        match path.strip_prefix(&self.root).unwrap_or(path).to_string_lossy().as_ref() {
            "" => ".".into(),
            name => name.into(),
        }
    }
}

impl Signature {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

fn list(directory: &Path, depth: usize) -> Result<Vec<PathBuf>, ScanError> {
    if depth > MAX_DEPTH {
        return Err(ScanError::TooDeep);
    }
    let entries = fs::read_dir(directory)?.collect::<Result<Vec<_>, _>>()?;
    let is_visible = |entry: &fs::DirEntry| !entry.file_name().as_encoded_bytes().starts_with(b".");
    Ok(entries.iter().filter(|entry| is_visible(entry)).map(fs::DirEntry::path).collect())
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

fn read(file: File) -> Result<String, ScanError> {
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(ScanError::TooLarge);
    }
    String::from_utf8(bytes).map_err(|error| ScanError::NotUtf8(error.utf8_error().valid_up_to()))
}

fn is_racy(metadata: &Metadata) -> bool {
    let age = metadata.modified().ok().and_then(|modified| SystemTime::now().duration_since(modified).ok());
    age.is_none_or(|age| age < RACY)
}
