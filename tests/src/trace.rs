//! The system calls of a running program, as `strace` sees them.
//!
//! They are counted, so that what a scenario claims of them does not depend on how busy the machine
//! is. Every thread is followed from [`Trace::attach`] on.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process::Process;
use crate::sandbox::WORK;
use crate::wait::{self, SOON};

/// A program that is being traced. Dropping it lets the program go.
#[derive(Debug)]
pub struct Trace {
    file: PathBuf,
    _strace: Process,
}

/// How often each system call was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    by_name: BTreeMap<String, u64>,
    wakes: u64,
}

impl Trace {
    /// Follows every thread of `program`, and returns when it does.
    ///
    /// # Errors
    /// When `strace` is missing or may not.
    pub fn attach(program: &Process) -> Result<Self> {
        let pid = program.pid();
        let file = Path::new(WORK).join(format!("calls-of-{pid}"));
        let mut command = Command::new("strace");
        // -y: what a descriptor is.
        command.args(["-f", "-y", "--quiet=all", "-o"]).arg(&file).args(["-p", &pid.to_string()]);
        let strace = Process::start(format!("strace of {pid}"), &mut command)
            .context("scripts/lib/needs packages installs it")?;
        wait::until(format!("strace to follow every thread of {pid}"), SOON, || {
            ensure!(strace.is_running(), "it has ended: {:?}", strace.log().lines());
            for task in fs::read_dir(format!("/proc/{pid}/task"))? {
                let status = fs::read_to_string(task?.path().join("status"))?;
                ensure!(!status.contains("TracerPid:\t0\n"), "a thread is not followed");
            }
            Ok(())
        })?;
        Ok(Self { file, _strace: strace })
    }

    /// The calls so far. `strace` writes each down before the thread goes on.
    ///
    /// # Errors
    /// When what it wrote cannot be read.
    pub fn calls(&self) -> Result<Calls> {
        let text = fs::read(&self.file).with_context(|| self.file.display().to_string())?;
        Ok(Calls::parse(&String::from_utf8_lossy(&text)))
    }
}

impl Calls {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.by_name.values().sum()
    }

    /// Those of this name.
    pub fn of(&self, name: &str) -> u64 {
        self.by_name.get(name).copied().unwrap_or_default()
    }

    /// Writes to an eventfd: how one worker wakes another.
    pub fn wakes(&self) -> u64 {
        self.wakes
    }

    /// Those that came since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let difference = |(name, count): (&String, &u64)| (name.clone(), count - earlier.of(name));
        let by_name = self.by_name.iter().map(difference).filter(|(_, count)| *count > 0).collect();
        Self { by_name, wakes: self.wakes - earlier.wakes }
    }

    /// Reads lines of the form `thread call(arguments) = result`. One that another thread interrupts
    /// is in two lines, of which the second begins with `<...`; signals begin with `---`.
    fn parse(text: &str) -> Self {
        let mut calls = Self::default();
        for line in text.lines() {
            let Some((_, call)) = line.split_once(' ') else { continue };
            let Some((name, arguments)) = call.trim_start().split_once('(') else { continue };
            if !name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_') {
                continue;
            }
            *calls.by_name.entry(name.to_owned()).or_default() += 1;
            let descriptor = arguments.split_once(',').map_or(arguments, |(first, _)| first);
            if name == "write" && descriptor.contains("[eventfd") {
                calls.wakes += 1;
            }
        }
        calls
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_counts_once_however_it_is_written_down() {
        let text = "12    epoll_wait(3<anon_inode:[eventpoll]>,  <unfinished ...>\n\
                    13    write(5<anon_inode:[eventfd]>, \"\\1\", 8) = 8\n\
                    12    <... epoll_wait resumed>[], 1024, -1) = 1\n\
                    12    --- SIGCHLD (Child exited) ---\n\
                    12    write(9<TCP:[1]>, \"[eventfd\", 8) = 8\n\
                    12    epoll_wait(3<anon_inode:[eventpoll]>, ";
        let calls = Calls::parse(text);
        assert_eq!((calls.total(), calls.of("epoll_wait"), calls.of("write"), calls.wakes()), (4, 2, 2, 1));
        assert_eq!(calls.since(&calls), Calls::default());
    }
}
