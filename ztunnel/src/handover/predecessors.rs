//! Which earlier agents of this node are still finishing their connections.
//!
//! A connection that one of them redirected is translated by the pod's rules until it ends: as long as
//! it may be open, nobody removes them.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Connections to earlier agents, each of which closes when its process ends.
#[derive(Debug, Default)]
pub struct Predecessors {
    connections: Vec<UnixStream>,
}

impl Predecessors {
    pub(super) fn of(connections: Vec<UnixStream>) -> Self {
        Self { connections }
    }

    /// Adds those of another.
    pub fn extend(&mut self, others: Self) {
        self.connections.extend(others.connections);
    }

    /// Whether one of them runs.
    pub fn any_runs(&mut self) -> bool {
        self.connections.retain(|connection| !is_closed(connection));
        !self.connections.is_empty()
    }

    pub(super) fn connections(&self) -> &[UnixStream] {
        &self.connections
    }
}

/// Whether the process at the other end is gone.
pub(super) fn is_closed(connection: &UnixStream) -> bool {
    let mut look = [PollFd::new(connection.as_fd(), PollFlags::empty())];
    // POLLHUP is reported without being asked for.
    let hung_up = poll(&mut look, PollTimeout::ZERO).is_ok_and(|ready| ready > 0);
    hung_up
        && look[0].revents().is_some_and(|events| events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn an_agent_counts_until_its_process_ends() {
        let (first, first_end) = UnixStream::pair().unwrap();
        let (second, second_end) = UnixStream::pair().unwrap();
        let mut predecessors = Predecessors::of(vec![first]);
        predecessors.extend(Predecessors::of(vec![second]));
        // A message that nobody reads is no end.
        (&first_end).write_all(b"released").unwrap();
        assert!(predecessors.any_runs());
        drop(first_end);
        assert!(predecessors.any_runs());
        drop(second_end);
        assert!(!predecessors.any_runs());
    }
}
