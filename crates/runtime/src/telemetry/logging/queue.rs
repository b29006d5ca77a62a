//! The bounded queue between those who log and the thread that writes.
//!
//! Lines of many threads are joined to one write. Pushing copies a line under a lock that is never
//! held during IO, so that its cost does not depend on who reads the log. After a write the writer
//! rests for a moment: under load a line wakes nobody, and a thousand of them are one write.

use std::io::{self, Write};
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait to be written.
#[derive(Debug)]
pub(super) struct Queue {
    limit_octets: usize,
    state: Mutex<State>,
    filled: Condvar,
    written: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<u8>,
    dropped: u64,
    /// The writer holds lines that are not written yet.
    writing: bool,
    /// The writer looks again by itself, very soon.
    resting: bool,
    /// Somebody waits for everything to be written.
    flushing: bool,
}

/// How long the writer rests: an operator does not see it, and at ten thousand lines a second it makes
/// one wake-up of fifty.
const REST: Duration = Duration::from_millis(5);

impl Queue {
    pub(super) fn new(limit_octets: usize) -> Self {
        Self { limit_octets, state: Mutex::default(), filled: Condvar::new(), written: Condvar::new() }
    }

    /// Adds a line, or counts it as dropped when there is no room for it.
    fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.lines.len() + line.len() > self.limit_octets {
            state.dropped += 1;
            return;
        }
        let before = state.lines.len();
        state.lines.extend_from_slice(line);
        let half = self.limit_octets / 2;
        let filled_up = before < half && state.lines.len() >= half;
        let wake = filled_up || (before == 0 && !state.resting);
        drop(state);
        if wake {
            self.filled.notify_one();
        }
    }

    /// Writes lines for as long as the process lives. An output that fails loses its lines: there is
    /// nowhere left to report it.
    pub(super) fn write_to(&self, mut output: impl Write) {
        let mut batch = Vec::new();
        loop {
            let dropped = self.take(&mut batch);
            let _lost = output.write_all(&batch).and_then(|()| output.flush());
            batch.clear();
            // What a burst needed is given back.
            batch.shrink_to(self.limit_octets / 64);
            if dropped > 0 {
                metrics::counter!("ambit_log_lines_dropped_total").increment(dropped);
                tracing::warn!(dropped, "log lines dropped: standard output is not read fast enough");
            }
            self.rest();
        }
    }

    /// Lets lines come together, unless somebody waits for them or half of the room is taken.
    fn rest(&self) {
        let mut state = self.lock();
        state.writing = false;
        state.resting = true;
        self.written.notify_all();
        let half = self.limit_octets / 2;
        let may_rest = |state: &mut State| state.lines.len() < half && !state.flushing;
        let rested = self.filled.wait_timeout_while(state, REST, may_rest);
        rested.unwrap_or_else(PoisonError::into_inner).0.resting = false;
    }

    /// Waits for lines and moves them to `batch`; returns how many were dropped meanwhile.
    fn take(&self, batch: &mut Vec<u8>) -> u64 {
        let waiting = self.filled.wait_while(self.lock(), |state| state.lines.is_empty());
        let mut state = waiting.unwrap_or_else(PoisonError::into_inner);
        mem::swap(&mut state.lines, batch);
        state.writing = true;
        mem::take(&mut state.dropped)
    }

    /// Waits until everything is written, but no longer than `within`.
    pub(super) fn flush(&self, within: Duration) {
        let busy = |state: &mut State| state.writing || !state.lines.is_empty();
        let mut state = self.lock();
        state.flushing = true;
        self.filled.notify_one();
        let waited = self.written.wait_timeout_while(state, within, busy);
        waited.unwrap_or_else(PoisonError::into_inner).0.flushing = false;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end of the queue that log lines go into.
#[derive(Debug)]
pub(super) struct Lines(pub(super) Arc<Queue>);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(&self.0)
    }
}

/// The same for one line.
#[derive(Debug)]
pub(super) struct Line<'a>(&'a Queue);

impl Write for Line<'_> {
    /// The formatter hands over a whole line at a time.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
impl Queue {
    /// What waits to be written.
    pub(super) fn waiting(&self) -> String {
        String::from_utf8(self.lock().lines.clone()).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
    use std::thread;

    use super::*;

    /// An output that writes nothing until it is told to, and hands on what it wrote.
    struct Held {
        go: Receiver<()>,
        wrote: SyncSender<Vec<u8>>,
    }

    impl Write for Held {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.go.recv().map_err(io::Error::other)?;
            self.wrote.send(octets.to_vec()).map_err(io::Error::other)?;
            Ok(octets.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_has_no_room_is_dropped_and_counted() {
        let queue = Queue::new(8);
        for _ in 0..1_000 {
            queue.push(b"line\n");
        }
        let mut batch = Vec::new();
        assert_eq!(queue.take(&mut batch), 999);
        assert_eq!(batch, b"line\n");
        assert_eq!(queue.lock().dropped, 0);
    }

    #[test]
    fn while_the_writer_rests_a_line_wakes_nobody_and_is_written_all_the_same() {
        let queue = Arc::new(Queue::new(1 << 20));
        let (go, held_go) = sync_channel(16);
        let (wrote, written) = sync_channel(16);
        let writer = Arc::clone(&queue);
        thread::spawn(move || writer.write_to(Held { go: held_go, wrote }));
        for turn in 0..3 {
            go.send(()).unwrap();
            queue.push(format!("line {turn}\n").as_bytes());
            // Nobody flushes: the writer has to find the line by itself, resting or not.
            let line = written.recv_timeout(Duration::from_secs(60)).unwrap();
            assert_eq!(line, format!("line {turn}\n").into_bytes());
        }
    }

    #[test]
    fn lines_are_written_in_order_and_flush_waits_for_them() {
        let queue = Arc::new(Queue::new(1 << 20));
        let (go, held_go) = sync_channel(16);
        let (wrote, written) = sync_channel(16);
        for line in [&b"one\n"[..], b"two\n", b"three\n"] {
            queue.push(line);
        }
        let writer = Arc::clone(&queue);
        thread::spawn(move || writer.write_to(Held { go: held_go, wrote }));

        queue.flush(Duration::ZERO);
        assert!(written.try_recv().is_err(), "flush returned with nothing written");
        go.send(()).unwrap();
        queue.flush(Duration::from_secs(60));
        assert_eq!(written.try_recv().unwrap(), b"one\ntwo\nthree\n");
    }
}
