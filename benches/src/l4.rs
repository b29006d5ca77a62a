//! The layer-4 suite, in parts that each have a mesh and a sandbox of their own: sets the paths up once,
//! then takes every case on every path, round by round.

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::Settings;
use crate::cases::Case;
use crate::figures::Readings;
use crate::lane::{Lane, Path};
use crate::machine::{self, Machine};
use crate::pin::Pin;

use delay::Network;
use measure::{Ground, Turn};
use setup::{Buffers, Stand};

mod delay;
mod measure;
mod memory;
mod setup;

/// A part of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// What the proxies keep in memory, with two workers each.
    Memory,
    /// Everything that is taken in rounds on a network of memory.
    Rounds,
    /// The same on a network that takes time and loses packets.
    Delay,
}

/// What a part of a run has taken.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Taken {
    pub(crate) machine: Machine,
    pub(crate) readings: Readings,
    /// What a reader of the figures has to know, such as what could not be measured here.
    pub(crate) remarks: Vec<String>,
}

/// Seconds of a measurement that only warms up.
const WARM_UP_SECONDS: u32 = 1;

/// Worker threads when memory is measured: what the target is for.
const MEMORY_WORKERS: u16 = 2;

impl Part {
    pub(crate) const ALL: [Self; 3] = [Self::Memory, Self::Rounds, Self::Delay];

    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Rounds => "rounds",
            Self::Delay => "delay",
        }
    }

    /// The part that takes a case.
    fn of(case: Case) -> Self {
        match case {
            Case::MemoryIdle | Case::MemoryPerConnection => Self::Memory,
            Case::Delayed { .. } => Self::Delay,
            Case::Bulk { .. }
            | Case::Http { .. }
            | Case::Paced(_)
            | Case::ConnectionsWarm
            | Case::ConnectionsCold
            | Case::Passthrough
            | Case::Fairness
            | Case::Churn => Self::Rounds,
        }
    }

    /// Whether any of the cases is taken in it.
    pub(crate) fn has_any_of(self, cases: &[Case]) -> bool {
        cases.iter().any(|case| Self::of(*case) == self)
    }
}

impl Taken {
    /// Adds what another part has taken.
    pub(crate) fn extend(&mut self, other: Self) {
        self.readings.extend(other.readings);
        self.remarks.extend(other.remarks);
    }
}

/// Measures.
///
/// # Errors
/// When any measurement fails: a figure that is not one would look like a bad one.
pub(crate) fn run(settings: &Settings, part: Part) -> Result<Taken> {
    let machine = machine::describe()?;
    eprintln!("{} of\n{}", part.name(), machine.lines.join("\n"));
    let cases: Vec<Case> = settings.cases().into_iter().filter(|case| Part::of(*case) == part).collect();
    let mut taken = Taken { machine, readings: Readings::default(), remarks: Vec::new() };
    match part {
        Part::Memory => memory(settings, &cases, &mut taken.readings)?,
        Part::Rounds => all_rounds(settings, &cases, &mut taken.readings)?,
        Part::Delay => delayed(settings, &cases, &mut taken)?,
    }
    Ok(taken)
}

fn memory(settings: &Settings, cases: &[Case], readings: &mut Readings) -> Result<()> {
    let processors = Pin::None.processors()?;
    let stand =
        Stand { workers: MEMORY_WORKERS, processors, buffers: Buffers::OfTheSystem, fresh_addresses: 0 };
    let mesh = setup::mesh(stand)?;
    let lanes = setup::lanes(&mesh, settings, stand)?;
    if cases.contains(&Case::MemoryIdle) {
        memory::idle(&lanes, readings)?;
    }
    if cases.contains(&Case::MemoryPerConnection) {
        memory::per_connection(&lanes, settings, readings)?;
    }
    setup::check_after(&mesh, &lanes)
}

fn all_rounds(settings: &Settings, cases: &[Case], readings: &mut Readings) -> Result<()> {
    let processors = settings.pin().processors()?;
    let (cold, warm): (Vec<Case>, Vec<Case>) = cases.iter().partition(|case| **case == Case::ConnectionsCold);
    let fresh_addresses = if cold.is_empty() { 0 } else { (settings.rounds + 1) * measure::COLD_CONNECTIONS };
    let buffers = Buffers::OfTheSystem;
    let stand = Stand { workers: settings.workers, processors, buffers, fresh_addresses };
    let mesh = setup::mesh(stand)?;
    let mut lanes = setup::lanes(&mesh, settings, stand)?;
    let mut ground = setup::ground(&mesh, stand)?;
    rounds(&mut ground, &mut lanes, settings, &warm, readings)?;
    // Last, because every tunnel that it opens stays for a while.
    if !cold.is_empty() {
        setup::publish_fresh_addresses(&mesh, &lanes, fresh_addresses)?;
        rounds(&mut ground, &mut lanes, settings, &cold, readings)?;
    }
    setup::check_after(&mesh, &lanes)
}

fn delayed(settings: &Settings, cases: &[Case], taken: &mut Taken) -> Result<()> {
    let processors = settings.pin().processors()?;
    let buffers = Buffers::Large;
    let stand = Stand { workers: settings.workers, processors, buffers, fresh_addresses: 0 };
    let mesh = setup::mesh(stand)?;
    let mut network = match Network::between_nodes(&mesh) {
        Ok(network) => network,
        Err(reason) => {
            let remark = format!("SKIPPED: delay and loss: {reason:#}");
            eprintln!("{remark}");
            taken.remarks.push(remark);
            return Ok(());
        }
    };
    taken.remarks.push(network.describe());
    let mut lanes = setup::lanes(&mesh, settings, stand)?;
    let mut ground = setup::ground(&mesh, stand)?;
    for case in cases {
        if let Case::Delayed { millis } = case {
            network.set_round_trip(*millis)?;
            if let Some(plain) = lanes.iter().find(|lane| lane.path == Path::Plain) {
                network.check(plain, *millis)?;
            }
            rounds(&mut ground, &mut lanes, settings, &[*case], &mut taken.readings)?;
        }
    }
    setup::check_after(&mesh, &lanes)
}

/// Takes the cases round by round, and in each the paths one after the other, beginning with another
/// one each time. The first round does not count.
fn rounds(
    ground: &mut Ground<'_>,
    lanes: &mut [Lane],
    settings: &Settings,
    cases: &[Case],
    readings: &mut Readings,
) -> Result<()> {
    let rounds = if cases.is_empty() { 0..0 } else { 0..settings.rounds + 1 };
    let lanes_count = lanes.len();
    for round in rounds {
        let counts = round > 0;
        let turn = Turn { round, seconds: if counts { settings.seconds } else { WARM_UP_SECONDS } };
        for (number, case) in cases.iter().enumerate() {
            for place in 0..lanes_count {
                let lane = &mut lanes[whose_turn(place, number, round, lanes_count)];
                if !case.exists_on(lane.path) {
                    continue;
                }
                let taken = measure::take(ground, lane, *case, turn)
                    .with_context(|| format!("{case} over {}, round {round}", lane.path))?;
                if counts {
                    readings.add(*case, lane.path, taken);
                }
            }
        }
        eprintln!("{} of {} rounds", round, settings.rounds);
    }
    Ok(())
}

/// Every path is first, second and so on equally often in a case, and in a round.
fn whose_turn(place: usize, case: usize, round: u32, lanes: usize) -> usize {
    (place + case + round as usize) % lanes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_at_another_turn_in_each_round_of_a_case() {
        let first = |round| whose_turn(0, 7, round, 4);
        assert_eq!([first(0), first(1), first(2), first(3), first(4)], [3, 0, 1, 2, 3]);
    }

    #[test]
    fn every_part_has_a_case() {
        for part in Part::ALL {
            assert!(part.has_any_of(&Case::all()), "{}", part.name());
        }
    }
}
