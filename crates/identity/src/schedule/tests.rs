use std::time::UNIX_EPOCH;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn seconds_from_now(next: Next) -> f64 {
    next.at().duration_since(now()).unwrap().as_secs_f64()
}

/// Evaluates over many seeds: the smallest and the largest wait.
fn spread(wait: impl Fn(&mut StdRng) -> Next) -> (f64, f64) {
    let waits = (0..200).map(|seed| seconds_from_now(wait(&mut StdRng::seed_from_u64(seed))));
    waits.fold((f64::MAX, f64::MIN), |(low, high), wait| (low.min(wait), high.max(wait)))
}

fn assert_within((low, high): (f64, f64), nominal: f64, part: f64) {
    let (least, most) = (nominal * (1.0 - part), nominal * (1.0 + part));
    assert!(least - 1e-6 <= low && high <= most + 1e-6, "{low}..{high} is not within {least}..{most}");
    assert!(high - low > nominal * part, "{low}..{high} hardly differ");
}

#[test]
fn renewal_is_at_half_life_give_or_take_a_tenth() {
    for life in [MINUTE, DAY] {
        let waits = spread(|rng| Schedule::issued(now(), now() + life, now(), rng).1);
        assert_within(waits, life.as_secs_f64() / 2.0, 0.1);
    }
}

#[test]
fn a_stored_certificate_past_its_half_is_renewed_almost_at_once_but_never_in_the_past() {
    let rng = &mut StdRng::seed_from_u64(1);
    let (_, next) = Schedule::issued(now() - DAY, now() + MINUTE, now(), rng);
    assert_eq!(next, Next::RenewAt(now() + RENEW_MIN));
    let (_, next) = Schedule::issued(now() - DAY, now() - MINUTE, now(), rng);
    assert_eq!(next, Next::RenewAt(now() + RENEW_MIN));
    let (_, next) = Schedule::issued(now() + DAY, now(), now(), rng);
    assert!(next.at() > now());
}

#[test]
fn pauses_double_up_to_their_limit() {
    // (held for, nominal pauses in seconds after each failure in a row)
    let rows: [(Option<Duration>, &[f64]); 3] = [
        (Some(DAY), &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 150.0, 150.0, 150.0]),
        (None, &[1.0, 2.0, 4.0, 8.0, 15.0, 15.0]),
        // Thirty seconds are left: no pause takes more than a quarter of them.
        (Some(Duration::from_secs(30)), &[1.0, 2.0, 4.0, 7.5, 7.5]),
    ];
    for (held, pauses) in rows {
        for (failures, nominal) in (0..).zip(pauses) {
            let schedule = Schedule { held_until: held.map(|left| now() + left), failures };
            assert_within(spread(|rng| schedule.failed(now(), rng).1), *nominal, 0.2);
        }
    }
}

#[test]
fn a_certificate_of_a_minute_is_tried_at_least_five_times_before_it_expires() {
    for seed in 0..200 {
        let rng = &mut StdRng::seed_from_u64(seed);
        let not_after = now() + MINUTE;
        let (mut schedule, mut next) = Schedule::issued(now(), not_after, now(), rng);
        let mut attempts = 0;
        while next.at() < not_after {
            attempts += 1;
            (schedule, next) = schedule.failed(next.at(), rng);
        }
        assert!(attempts >= 5, "seed {seed}: {attempts} attempts");
    }
}

#[test]
fn every_event_leads_from_every_state_where_the_diagram_says() {
    let missing = Schedule::default();
    let held = Schedule { held_until: Some(now() + DAY), failures: 0 };
    let backing_off = Schedule { held_until: Some(now() + DAY), failures: 3 };
    let expired = Schedule { held_until: Some(now()), failures: 3 };
    let rng = &mut StdRng::seed_from_u64(1);

    let failed: [(&str, Schedule, Schedule); 4] = [
        ("missing", missing, Schedule { held_until: None, failures: 1 }),
        ("held", held, Schedule { held_until: held.held_until, failures: 1 }),
        ("backing off", backing_off, Schedule { held_until: held.held_until, failures: 4 }),
        ("expired", expired, Schedule { held_until: None, failures: 4 }),
    ];
    for (name, before, after) in failed {
        let (state, next) = before.failed(now(), rng);
        assert_eq!(state, after, "{name}");
        assert!(matches!(next, Next::RetryAt(at) if at > now()), "{name}");
    }
    let (state, next) = Schedule::issued(now(), now() + DAY, now(), rng);
    assert_eq!(state, held);
    assert!(matches!(next, Next::RenewAt(_)));
}

#[test]
fn failures_without_end_do_not_overflow() {
    let worn = Schedule { held_until: None, failures: u32::MAX };
    let (state, next) = worn.failed(now(), &mut StdRng::seed_from_u64(1));
    assert_eq!(state.failures, u32::MAX);
    assert!(seconds_from_now(next) <= 18.0);
}
