//! The tunnel without its sockets: two codecs and two TLS sessions in memory, doing a counted amount
//! of work. What it costs is counted, not timed: allocations by this program itself, instructions
//! when it runs under callgrind. The budgets are in `tests/tests/guards/`.
//!
//! ```text
//! cargo bench -p ambit-hbone --bench core                                     every kind of work
//! cargo bench -p ambit-hbone --bench core -- requests 100 requests 300        these, in this order
//! ```
//!
//! A line on standard output for each: its name, units, allocations, allocated octets. Only what
//! happens inside of [`measured`] counts: the handshake and the first units are over by then. What a
//! call of it costs beside its units cancels in the difference of two calls.

#![expect(clippy::unwrap_used, reason = "what fails in a benchmark ends it")]

mod allocations;
#[path = "../../tests/support/certificates.rs"]
mod certificates;
mod ends;
mod work;

use std::env;
use std::io::{Result, Write, stdout};

use allocations::Allocations;
use ends::Ends;
use work::Work;

fn main() -> Result<()> {
    // Cargo says `--bench` to every benchmark.
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let mut ends = Ends::connected();
    if arguments.is_empty() {
        Work::ALL.into_iter().try_for_each(|work| run(work, &mut ends, 100))?;
    }
    for pair in arguments.chunks(2) {
        let [name, units] = pair else { panic!("each kind of work is followed by a number of units") };
        run(work_named(name), &mut ends, units.parse().expect("a number of units"))?;
    }
    Ok(())
}

fn work_named(name: &str) -> Work {
    Work::ALL.into_iter().find(|work| work.name() == name).expect("requests, streams or bulk")
}

/// After so many units the tables and queues have the size that they keep.
const WARM_UP: u64 = 8;

fn run(work: Work, ends: &mut Ends, units: u64) -> Result<()> {
    work.run(ends, WARM_UP);
    let Allocations { count, octets } = measured(work, ends, units);
    writeln!(stdout(), "{} {units} {count} {octets}", work.name())
}

/// Callgrind counts from the call of this function to its return, and knows it by its name.
#[inline(never)]
fn measured(work: Work, ends: &mut Ends, units: u64) -> Allocations {
    let before = Allocations::so_far();
    work.run(ends, units);
    Allocations::so_far() - before
}
