//! Keeps the plugin in the node's chain while the agent runs: installs it when there is something to be
//! chained to, and puts it back when another program has written its configuration anew.
//!
//! It runs on a thread of its own: everything it does is file IO.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ambit_runtime::readiness::Ready;
use metrics::{counter, gauge};
use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::chain::{Chained, Present, Waiting};
use super::repairs::{Permission, Repairs};
use super::{InstallError, Installation, apply, copy_program, read_files};
use crate::cni::PROGRAM;

/// Changes that follow each other more closely are looked at together.
const QUIET: Duration = Duration::from_millis(50);

/// What no event tells of is found after this long.
const RESCAN: Duration = Duration::from_secs(60);

/// How long after a failure it is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// What is said where another program has its way.
const INSISTED: &str = "another program insists on a node's chain without the CNI plugin. Until it is configured to keep the \
                        plugin, pods of the mesh start uncaptured and are captured a moment later";

/// A running watch. Dropping it stops the thread and leaves the plugin where it is.
#[derive(Debug)]
pub struct Keeper {
    wake: Sender<Wake>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Wake {
    /// Something in the directory changed.
    Changed,
    /// The owner is gone.
    Stop,
}

impl Keeper {
    /// Starts to keep the plugin installed. `ready` says whether it is, and `problems` what prevents it that a person
    /// has to see to.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(
        installation: Installation,
        ready: Ready,
        problems: watch::Sender<Vec<String>>,
    ) -> io::Result<Self> {
        let (wake, wakes) = channel();
        let watch = Watch {
            installation,
            ready,
            problems,
            wake: wake.clone(),
            watcher: None,
            repairs: Repairs::default(),
            state: State::New,
            was_chained: false,
        };
        let thread =
            thread::Builder::new().name("cni-install".to_owned()).spawn(move || watch.run(&wakes))?;
        Ok(Self { wake, thread: Some(thread) })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // The receiver is gone only when the thread already ended.
        let _ = self.wake.send(Wake::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Watch {
    installation: Installation,
    ready: Ready,
    problems: watch::Sender<Vec<String>>,
    wake: Sender<Wake>,
    watcher: Option<Watched>,
    repairs: Repairs,
    state: State,
    /// Whether it has ever been in the chain. Before, what is there may be of an earlier run.
    was_chained: bool,
}

/// A watch is bound to one directory inode, not to a name.
struct Watched {
    _watcher: RecommendedWatcher,
    inode: (u64, u64),
}

/// How the plugin was found last. What is logged is the change from one to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Nothing was looked at so far.
    New,
    /// There is nothing to be chained to.
    Waiting(Waiting),
    /// It is in the chain.
    Chained,
    /// It was in the chain of this file, and another program insists that it is not.
    GivenWay(String),
}

impl State {
    /// What of it a person has to see to. That there is nothing to be chained to is so on each node that starts.
    fn problem(&self) -> Option<String> {
        match self {
            Self::New | Self::Chained | Self::Waiting(Waiting::Empty) => None,
            Self::Waiting(waiting @ (Waiting::Absent { .. } | Waiting::Unusable(_))) => {
                Some(waiting.to_string())
            }
            Self::GivenWay(file) => Some(format!("{file}: {INSISTED}")),
        }
    }
}

impl Watch {
    fn run(mut self, wakes: &Receiver<Wake>) {
        self.keep(wakes);
        // Who comes after this agent has problems of its own.
        self.problems.send_replace(Vec::new());
    }

    fn keep(&mut self, wakes: &Receiver<Wake>) {
        let mut failed_before = false;
        loop {
            // Watching begins before reading: what changes in between wakes the next round.
            self.keep_watching();
            let looked = self.look();
            // What fails once may be another program that writes at the same moment.
            self.tell(looked.as_ref().err().filter(|_| failed_before));
            failed_before = looked.is_err();
            let next_look = looked.unwrap_or_else(|error| {
                warn!(%error, "the CNI plugin is not in the node's chain: trying again");
                RETRY
            });
            // What cannot be watched, such as a directory that is still to be made, is looked at often.
            let next_look = if self.watcher.is_some() { next_look } else { next_look.min(RETRY) };
            if wait_for_change(wakes, next_look) == Next::Stop {
                return;
            }
        }
    }

    /// Sees to it that the plugin is in the chain; until when, at most, nothing has to be looked at.
    fn look(&mut self) -> Result<Duration, InstallError> {
        let Installation { program, conf_dir, bin_dir, .. } = self.installation.clone();
        // Content is compared once: later it may be another agent's, which is newer.
        if !self.was_chained || !bin_dir.join(PROGRAM).exists() {
            copy_program(&program, &bin_dir)?;
        }
        let files = read_files(&conf_dir)?;
        let present = if self.was_chained { Present::Left } else { Present::Renewed };
        let Chained { file, changes } = match self.installation.chained(&files, present) {
            Ok(chained) => chained,
            Err(waiting) => return Ok(self.wait(waiting)),
        };
        if !changes.is_empty() {
            if self.was_chained
                && let Err(pause) = self.may_repair(&file)
            {
                return Ok(pause);
            }
            apply(&conf_dir, &files, &changes)?;
        }
        if self.state != State::Chained {
            info!(%file, "the CNI plugin is in the node's chain");
        }
        self.was_chained = true;
        self.enter(State::Chained);
        Ok(RESCAN)
    }

    /// Whether the plugin may be put back into `file`; if not, when to look again.
    fn may_repair(&mut self, file: &str) -> Result<(), Duration> {
        let now = Instant::now();
        match self.repairs.ask(now) {
            Permission::Repair => {
                counter!("ambit_cni_repairs_total").increment(1);
                warn!(file, "another program has taken the CNI plugin out of the node's chain: put back");
                Ok(())
            }
            Permission::GiveWay { until } => {
                error!(file, "giving way: {INSISTED}");
                self.enter(State::GivenWay(file.to_owned()));
                Err(until.saturating_duration_since(now))
            }
            Permission::Wait { until } => Err(until.saturating_duration_since(now)),
        }
    }

    fn wait(&mut self, waiting: Waiting) -> Duration {
        if self.state != State::Waiting(waiting.clone()) {
            let directory = self.installation.conf_dir.display();
            warn!(%directory, %waiting, "the CNI plugin waits for something to be chained to");
            self.enter(State::Waiting(waiting));
        }
        RESCAN
    }

    fn enter(&mut self, state: State) {
        let is_chained = state == State::Chained;
        gauge!("ambit_cni_chained").set(if is_chained { 1.0 } else { 0.0 });
        if is_chained {
            self.ready.ready()
        } else {
            self.ready.unready()
        }
        self.state = state;
    }

    /// Tells what prevents it now.
    fn tell(&self, failure: Option<&InstallError>) {
        let failure =
            failure.map(|error| format!("the CNI plugin cannot be put into the node's chain: {error}"));
        let problems: Vec<String> = self.state.problem().into_iter().chain(failure).collect();
        self.problems.send_if_modified(|told| {
            let is_new = *told != problems;
            *told = problems;
            is_new
        });
    }

    fn keep_watching(&mut self) {
        let directory = &self.installation.conf_dir;
        let Some(inode) = inode(directory) else {
            self.watcher = None;
            return;
        };
        if self.watcher.as_ref().is_some_and(|watched| watched.inode == inode) {
            return;
        }
        match watch(directory, self.wake.clone()) {
            Ok(watcher) => self.watcher = Some(Watched { _watcher: watcher, inode }),
            Err(error) => {
                warn!(directory = %directory.display(), %error, "the directory cannot be watched: looking at it now and then");
                self.watcher = None;
            }
        }
    }
}

fn watch(directory: &Path, wake: Sender<Wake>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.map_or(true, |event| is_change(&event.kind)) {
            // Nobody receives once the thread has ended.
            let _ = wake.send(Wake::Changed);
        }
    })?;
    watcher.watch(directory, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

/// Not that something was read, which we do ourselves.
fn is_change(kind: &EventKind) -> bool {
    match kind {
        EventKind::Access(access) => *access == AccessKind::Close(AccessMode::Write),
        EventKind::Any
        | EventKind::Create(_)
        | EventKind::Modify(_)
        | EventKind::Remove(_)
        | EventKind::Other => true,
    }
}

fn inode(directory: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(directory).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Look,
    Stop,
}

/// Waits for a change, and then until nothing more has changed for a moment.
fn wait_for_change(wakes: &Receiver<Wake>, longest: Duration) -> Next {
    let mut patience = longest;
    loop {
        match wakes.recv_timeout(patience) {
            Ok(Wake::Changed) => patience = QUIET,
            Err(RecvTimeoutError::Timeout) => return Next::Look,
            Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return Next::Stop,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use ambit_runtime::readiness::Readiness;

    use super::super::tests::installation;
    use super::*;

    const CONF: &str = r#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"bridge"}]}"#;

    /// Writes as network plugins do, aside and then into place.
    fn write(directory: &Path, name: &str, text: &str) {
        let aside = directory.join(format!(".{name}.tmp"));
        fs::write(&aside, text).unwrap();
        fs::rename(aside, directory.join(name)).unwrap();
    }

    /// A watch without its thread: the test says when it looks.
    fn watch_of(installation: Installation, readiness: &Readiness) -> Watch {
        let problems = watch::Sender::default();
        let (wake, _) = channel();
        let ready = readiness.register("CNI plugin");
        let (repairs, state) = (Repairs::default(), State::New);
        Watch { installation, ready, problems, wake, watcher: None, repairs, state, was_chained: false }
    }

    #[tokio::test]
    async fn the_plugin_is_chained_when_there_is_something_and_put_back_when_it_is_taken_out() {
        let (directory, installation) = installation();
        let conf_dir = installation.conf_dir.clone();
        let program = installation.bin_dir.join(PROGRAM);
        let readiness = Readiness::default();
        let ready = readiness.register("CNI plugin");
        let keeper = Keeper::start(installation, ready, watch::Sender::default()).unwrap();
        fs::create_dir_all(&conf_dir).unwrap();
        write(&conf_dir, "10-net.conflist", CONF);
        readiness.ready().await;
        assert!(program.exists());
        let named = || fs::read_to_string(conf_dir.join("10-net.conflist")).unwrap().contains(PROGRAM);
        assert!(named());
        write(&conf_dir, "10-net.conflist", CONF);
        // What it does is seen in the file alone: readiness has not changed.
        let until = Instant::now() + Duration::from_secs(20);
        while !named() {
            assert!(Instant::now() < until, "it was not put back");
            thread::park_timeout(QUIET);
        }
        drop(keeper);
        assert!(named(), "it stays when the agent goes");
        drop(directory);
    }

    #[tokio::test]
    async fn what_a_person_has_to_see_to_is_told_as_long_as_the_agent_keeps_the_chain() {
        let (_directory, mut installation) = installation();
        installation.conf_name = Some("20-other.conflist".to_owned());
        let (told, mut problems) = watch::channel(Vec::new());
        let ready = Readiness::default().register("CNI plugin");
        let keeper = Keeper::start(installation, ready, told).unwrap();
        let named = |problems: &Vec<String>| problems.len() == 1 && problems[0].contains("20-other.conflist");
        problems.wait_for(named).await.unwrap();
        drop(keeper);
        assert!(problems.borrow().is_empty());
    }

    #[test]
    fn who_insists_on_its_own_text_has_its_way_and_it_is_said() {
        let (_directory, installation) = installation();
        let conf_dir = installation.conf_dir.clone();
        let readiness = Readiness::default();
        let mut watch = watch_of(installation, &readiness);
        assert_eq!(watch.look().unwrap(), RESCAN, "nothing is there");
        assert!(matches!(watch.state, State::Waiting(Waiting::Empty)));
        fs::create_dir_all(&conf_dir).unwrap();
        let mut rounds = 0;
        while !matches!(watch.state, State::GivenWay(_)) {
            write(&conf_dir, "10-net.conflist", CONF);
            watch.look().unwrap();
            rounds += 1;
            assert!(rounds < 20, "it fights");
        }
        assert_eq!(fs::read_to_string(conf_dir.join("10-net.conflist")).unwrap(), CONF);
        assert_eq!(readiness.pending(), ["CNI plugin"]);
        watch.tell(None);
        assert_eq!(*watch.problems.borrow(), [format!("10-net.conflist: {INSISTED}")]);
        assert!(watch.look().unwrap() > RESCAN, "it is left alone for a while");
    }

    #[test]
    fn another_agents_part_is_renewed_at_the_start_and_then_left() {
        let (_directory, installation) = installation();
        let conf_dir = installation.conf_dir.clone();
        fs::create_dir_all(&conf_dir).unwrap();
        let of_another = CONF.replace("]}", r#",{"type":"ambit-cni","timeoutSeconds":7}]}"#);
        write(&conf_dir, "10-net.conflist", &of_another);
        let text = || fs::read_to_string(conf_dir.join("10-net.conflist")).unwrap();
        let mut watch = watch_of(installation, &Readiness::default());
        watch.look().unwrap();
        assert!(!text().contains("\"timeoutSeconds\":7"));
        write(&conf_dir, "10-net.conflist", &of_another);
        watch.look().unwrap();
        assert_eq!(text(), of_another, "a successor has written it");
    }
}
