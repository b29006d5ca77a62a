//! Watches a directory of Kubernetes YAML and sends what changed, in batches.
//!
//! The shell around `scan` (IO), `settle` (when a text is judged) and `catalog` (what it means). It
//! runs on a thread of its own: everything it does is file IO.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};

use super::catalog::{Catalog, FileState, Files};
use super::reading;
use super::scan::{Scan, Scanner};
use super::settle::{SETTLE, Settling, Verdict};
use super::{Batch, SourceProblem};

/// Changes that follow each other more closely are read together.
const QUIET: Duration = Duration::from_millis(20);

/// A stream of changes is read after this long even if it goes on.
const LONGEST_WAIT: Duration = Duration::from_millis(300);

/// File systems that report no changes (some network mounts) are looked at this often.
const RESCAN: Duration = Duration::from_secs(5);

/// A directory that cannot be watched or read is looked at this often.
const RETRY: Duration = Duration::from_secs(1);

/// A running watch. Dropping it stops the thread and waits for it.
#[derive(Debug)]
pub struct DirSource {
    wake: Sender<Wake>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Wake {
    /// Something below the directory changed.
    Changed(Change),
    /// The owner is gone.
    Stop,
}

/// What a file system event says about a file being written.
#[derive(Debug)]
enum Change {
    Begun(Vec<PathBuf>),
    Finished(Vec<PathBuf>),
    Other,
}

impl DirSource {
    /// Starts to watch `root`. The first batch holds everything and is sent as soon as the directory
    /// could be read.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(root: PathBuf, batches: SyncSender<Batch>) -> io::Result<Self> {
        let (wake, wakes) = channel();
        let watch = Watch::new(root, wake.clone());
        let thread = std::thread::Builder::new()
            .name("config-dir".to_owned())
            .spawn(move || watch.run(&wakes, &batches))?;
        Ok(Self { wake, thread: Some(thread) })
    }
}

impl Drop for DirSource {
    fn drop(&mut self) {
        // The receiver is gone only when the thread already ended.
        let _ = self.wake.send(Wake::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Reads a directory once, judging everything as it stands.
pub fn read_once(root: &Path) -> Batch {
    let scan = Scanner::new(root.to_owned()).scan();
    let judge = |(path, text): (_, Option<String>)| {
        let content = reading::read(&path, &text.unwrap_or_default());
        (path, FileState::Read(content))
    };
    let contents = scan.texts.into_iter().map(judge).collect();
    Catalog::default().update(Files { contents, unreadable: scan.unreadable })
}

struct Watch {
    root: PathBuf,
    wake: Sender<Wake>,
    watcher: Option<Watched>,
    scanner: Scanner,
    settling: Settling,
    catalog: Catalog,
    /// The problems of the last batch; `None` before the first.
    sent_problems: Option<Vec<SourceProblem>>,
    is_waiting_logged: bool,
}

/// A watch is bound to one directory inode, not to a name.
struct Watched {
    _watcher: RecommendedWatcher,
    inode: (u64, u64),
}

impl Watch {
    fn new(root: PathBuf, wake: Sender<Wake>) -> Self {
        let scanner = Scanner::new(root.clone());
        Self {
            root,
            wake,
            watcher: None,
            scanner,
            settling: Settling::default(),
            catalog: Catalog::default(),
            sent_problems: None,
            is_waiting_logged: false,
        }
    }

    fn run(mut self, wakes: &Receiver<Wake>, batches: &SyncSender<Batch>) {
        loop {
            // Watching begins before reading: what changes in between wakes the next round.
            self.keep_watching();
            if let Some(batch) = self.look()
                && batches.send(batch).is_err()
            {
                return;
            }
            if wait_for_change(wakes, self.next_look()) == Next::Stop {
                return;
            }
        }
    }

    fn next_look(&self) -> Duration {
        if self.settling.is_waiting() {
            SETTLE
        } else if self.watcher.is_some() {
            RESCAN
        } else {
            RETRY
        }
    }

    /// Reads what changed; `None` when nothing is to be told.
    fn look(&mut self) -> Option<Batch> {
        let scan = self.scanner.scan();
        let root_is_unreadable = scan.unreadable.iter().any(|problem| &*problem.origin.file == ".");
        let files = self.judge(scan);
        if self.sent_problems.is_none() && (root_is_unreadable || self.settling.is_waiting()) {
            self.log_waiting(root_is_unreadable);
            return None;
        }
        let batch = self.catalog.update(files);
        if batch.events.is_empty() && self.sent_problems.as_ref() == Some(&batch.problems) {
            return None;
        }
        self.sent_problems = Some(batch.problems.clone());
        Some(batch)
    }

    /// Says once that there is nothing to start with.
    fn log_waiting(&mut self, root_is_unreadable: bool) {
        if root_is_unreadable && !self.is_waiting_logged {
            tracing::warn!(directory = %self.root.display(), "configuration cannot be read: waiting for it");
        }
        self.is_waiting_logged |= root_is_unreadable;
    }

    fn judge(&mut self, scan: Scan) -> Files {
        let now = Instant::now();
        let Scan { texts, unreadable } = scan;
        let gone: Vec<_> = self.catalog.paths().filter(|path| !texts.contains_key(*path)).cloned().collect();
        self.settling.retain(|path| texts.contains_key(path) || gone.iter().any(|gone| &**gone == path));
        let mut contents: BTreeMap<_, _> = texts
            .into_iter()
            .map(|(path, text)| {
                let state = text.map_or(FileState::AsBefore, |text| self.judge_file(&path, &text, now));
                (path, state)
            })
            .collect();
        // A file that is replaced by removing it first is gone for a moment.
        for path in gone {
            if self.settling.verdict(&path, 0, true, now) == Verdict::LookAgain {
                contents.insert(path, FileState::AsBefore);
            }
        }
        Files { contents, unreadable }
    }

    fn judge_file(&mut self, path: &Arc<str>, text: &str, now: Instant) -> FileState {
        let before = self.catalog.file(path);
        if before.is_some_and(|before| before.text_hash == reading::hash(text)) {
            return FileState::AsBefore;
        }
        let content = reading::read(path, text);
        // A writer who truncates first leaves an empty file; one who is interrupted, a cut line.
        let is_emptied = text.is_empty() && before.is_some_and(|before| !before.readings.is_empty());
        let is_cut = !text.is_empty() && !text.ends_with('\n');
        let is_suspicious = content.is_broken() || is_emptied || is_cut;
        match self.settling.verdict(path, content.text_hash, is_suspicious, now) {
            Verdict::Judge => FileState::Read(content),
            Verdict::LookAgain => {
                self.scanner.forget(path);
                FileState::AsBefore
            }
        }
    }

    /// Watches the directory that the name leads to now.
    fn keep_watching(&mut self) {
        let inode = fs::metadata(&self.root).map(|metadata| (metadata.dev(), metadata.ino())).ok();
        if self.watcher.as_ref().map(|watched| watched.inode) == inode {
            return;
        }
        self.watcher = None;
        let Some(inode) = inode else { return };
        match watch(&self.root, self.wake.clone()) {
            Ok(watcher) => self.watcher = Some(Watched { _watcher: watcher, inode }),
            Err(error) => {
                tracing::warn!(directory = %self.root.display(), %error, "directory cannot be watched, polling");
            }
        }
    }
}

fn watch(root: &Path, wake: Sender<Wake>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if let Some(change) = event.map_or(Some(Change::Other), change) {
            // Fails only when the thread has ended and drops this watcher.
            let _ = wake.send(Wake::Changed(change));
        }
    })?;
    watcher.watch(root, RecursiveMode::Recursive)?;
    Ok(watcher)
}

/// What an event means here; `None` for reading, which is what this module itself does.
fn change(event: notify::Event) -> Option<Change> {
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some(Change::Finished(event.paths)),
        EventKind::Access(_) => None,
        EventKind::Create(CreateKind::File) | EventKind::Modify(ModifyKind::Data(_)) => {
            Some(Change::Begun(event.paths))
        }
        EventKind::Create(_)
        | EventKind::Modify(_)
        | EventKind::Remove(_)
        | EventKind::Any
        | EventKind::Other => Some(Change::Other),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Next {
    Look,
    Stop,
}

/// Waits until something changed and the change is over, or until `longest` has passed.
fn wait_for_change(wakes: &Receiver<Wake>, longest: Duration) -> Next {
    let mut writing = BTreeSet::new();
    let mut wait = longest;
    let mut deadline = None;
    loop {
        match wakes.recv_timeout(wait) {
            Ok(Wake::Changed(change)) => note(change, &mut writing),
            Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return Next::Stop,
            Err(RecvTimeoutError::Timeout) => return Next::Look,
        }
        let now = Instant::now();
        let left = deadline.get_or_insert(now + LONGEST_WAIT).saturating_duration_since(now);
        if left.is_zero() {
            return Next::Look;
        }
        wait = if writing.is_empty() { QUIET.min(left) } else { left };
    }
}

fn note(change: Change, writing: &mut BTreeSet<PathBuf>) {
    match change {
        Change::Begun(paths) => writing.extend(paths),
        Change::Finished(paths) => paths.iter().for_each(|path| {
            writing.remove(path);
        }),
        Change::Other => {}
    }
}

#[cfg(test)]
mod tests;
