//! The layer-4 suite: sets the paths up once, then takes every case on every path, round by round.

use anyhow::{Context, Result};

use crate::Settings;
use crate::cases::Case;
use crate::figures::{Figure, Readings};
use crate::lane::Lane;
use crate::machine;

mod measure;
mod memory;
mod setup;

/// The cases that rounds are made of, without the cold one.
const WARM: [Case; 5] =
    [Case::BulkOne, Case::BulkEight, Case::HttpOne, Case::HttpSixtyFour, Case::ConnectionsWarm];

/// Seconds of a measurement that only warms up.
const WARM_UP_SECONDS: u32 = 1;

/// Measures.
///
/// # Errors
/// When any measurement fails: a figure that is not one would look like a bad one.
pub(crate) fn run(settings: &Settings) -> Result<Vec<Figure>> {
    eprintln!("{}", machine::describe()?);
    let mesh = setup::mesh(settings)?;
    let mut lanes = setup::lanes(&mesh, settings)?;
    let mut readings = Readings::default();
    // Memory first: what a proxy keeps of earlier work would pass for what it needs now.
    if settings.wants(Case::MemoryIdle) {
        memory::idle(&lanes, &mut readings)?;
    }
    if settings.wants(Case::MemoryPerConnection) {
        memory::per_connection(&lanes, settings, &mut readings)?;
    }
    rounds(&mut lanes, settings, &WARM, &mut readings)?;
    // Last, because every tunnel that it opens stays for a while.
    if settings.wants(Case::ConnectionsCold) {
        setup::publish_fresh_addresses(&mesh, &lanes, (settings.rounds + 1) * measure::COLD_CONNECTIONS)?;
        rounds(&mut lanes, settings, &[Case::ConnectionsCold], &mut readings)?;
    }
    setup::check_after(&mesh, &lanes)?;
    Ok(readings.figures())
}

/// Takes the cases round by round, and in each the paths one after the other, beginning with another
/// one each time. The first round does not count.
fn rounds(lanes: &mut [Lane], settings: &Settings, cases: &[Case], readings: &mut Readings) -> Result<()> {
    let cases: Vec<Case> = cases.iter().copied().filter(|case| settings.wants(*case)).collect();
    let rounds = if cases.is_empty() { 0..0 } else { 0..settings.rounds + 1 };
    for round in rounds {
        let counts = round > 0;
        let seconds = if counts { settings.seconds } else { WARM_UP_SECONDS };
        for case in &cases {
            lanes.rotate_left(1);
            for lane in &mut *lanes {
                let taken = measure::take(lane, *case, seconds)
                    .with_context(|| format!("{} over {}, round {round}", case.name(), lane.path))?;
                if counts {
                    readings.add(*case, lane.path, taken);
                }
            }
        }
        eprintln!("{} of {} rounds", round, settings.rounds);
    }
    Ok(())
}
