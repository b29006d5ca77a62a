//! Which processor programs run on.
//!
//! A process begins with the processors of the thread that starts it, and so does a thread: whoever
//! starts something of a node does it inside of [`Processors::on`].

use anyhow::{Context, Result};
use clap::ValueEnum;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// How programs are given processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pin {
    /// One for everything of the client's node, another one for everything of the server's.
    Nodes,
    /// The kernel's choice.
    None,
}

/// An end of a path: a node, with what runs in its pods and for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Client,
    Server,
}

/// The processors of both ends; none where the kernel chooses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Processors(Option<(usize, usize)>);

impl Pin {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nodes => "nodes",
            Self::None => "none",
        }
    }

    /// The processors that this process may use, as it says.
    ///
    /// # Errors
    /// When the kernel does not tell them.
    pub(crate) fn processors(self) -> Result<Processors> {
        let allowed = sched_getaffinity(THIS_THREAD).context("the processors of this process")?;
        let allowed = (0..CpuSet::count()).filter(|number| allowed.is_set(*number).unwrap_or_default());
        Ok(self.choose(allowed))
    }

    fn choose(self, mut allowed: impl Iterator<Item = usize>) -> Processors {
        match self {
            Self::Nodes => Processors(allowed.next().zip(allowed.next())),
            Self::None => Processors(None),
        }
    }
}

impl Processors {
    /// Does the work, with all that it starts, on the processor of an end.
    ///
    /// # Errors
    /// Those of the work, and when the kernel refuses.
    pub(crate) fn on<T>(self, end: End, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let Some((client, server)) = self.0 else { return work() };
        let before = sched_getaffinity(THIS_THREAD)?;
        let mut one = CpuSet::new();
        one.set(match end {
            End::Client => client,
            End::Server => server,
        })?;
        sched_setaffinity(THIS_THREAD, &one).context("pinning to a processor")?;
        let outcome = work();
        sched_setaffinity(THIS_THREAD, &before)?;
        outcome
    }
}

const THIS_THREAD: Pid = Pid::from_raw(0);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_have_different_processors_where_there_are_two() {
        assert_eq!(Pin::Nodes.choose([2, 5, 6].into_iter()).0, Some((2, 5)));
        assert_eq!(Pin::Nodes.choose([2].into_iter()).0, None);
        assert_eq!(Pin::None.choose([2, 5].into_iter()).0, None);
    }

    #[test]
    fn work_is_done_on_the_processor_of_its_end_and_the_thread_gets_its_own_back() {
        let here = || sched_getaffinity(THIS_THREAD).unwrap();
        let before = here();
        let first = (0..CpuSet::count()).find(|number| before.is_set(*number).unwrap()).unwrap();
        let mut only = CpuSet::new();
        only.set(first).unwrap();
        let inside = Processors(Some((first, first))).on(End::Server, || Ok(here())).unwrap();
        assert_eq!((inside, here()), (only, before));
    }
}
