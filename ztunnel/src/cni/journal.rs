//! What the plugin writes down of its calls: a file of bounded size, since nobody sees the standard
//! error of a program that a runtime calls.
//!
//! The runtime learns of failures by itself; a journal that cannot be written fails nothing.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Octets of the file; there are at most two of them.
const LONGEST: u64 = 1 << 20;

/// Where calls are written down, if anywhere.
#[derive(Clone, Debug)]
pub struct Journal {
    path: Option<PathBuf>,
}

impl Journal {
    /// Writes to this file.
    pub fn new(path: Option<PathBuf>) -> Self {
        Self { path }
    }

    /// Writes one line, with the time and the process.
    pub fn write(&self, text: &str) {
        let Some(path) = &self.path else { return };
        let now = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
        // A line for each call, whatever is in a name.
        let text = text.replace(['\n', '\r'], " ");
        append(path, &format!("{now} {} {text}\n", process::id()), LONGEST);
    }
}

/// Appends in one step, so that calls at the same time do not mix their lines.
fn append(path: &Path, line: &str, longest: u64) {
    let is_full = fs::metadata(path).is_ok_and(|metadata| metadata.len() >= longest);
    if is_full {
        let mut older = path.as_os_str().to_owned();
        older.push(".1");
        // Two calls at once may both do it: then the older part is lost a little earlier.
        let _ = fs::rename(path, older);
    }
    let file = File::options().append(true).create(true).mode(0o600).open(path);
    let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_has_a_bounded_size() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cni.log");
        for number in 0..100 {
            append(&path, &format!("line {number:03}\n"), 90);
        }
        let text = fs::read_to_string(&path).unwrap();
        let older = fs::read_to_string(directory.path().join("cni.log.1")).unwrap();
        assert!(text.len() <= 90 && older.len() <= 90 + 9, "{} and {}", text.len(), older.len());
        assert!(text.ends_with("line 099\n"));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_line_is_a_line_and_a_directory_that_is_missing_is_no_failure() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cni.log");
        Journal::new(Some(path.clone())).write("ADD shop/web\nforged");
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1);
        Journal::new(Some(directory.path().join("absent/cni.log"))).write("ADD");
        Journal::new(None).write("ADD");
    }
}
