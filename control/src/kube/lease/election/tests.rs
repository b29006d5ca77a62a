use super::*;

const US: &str = "control-a";
const OTHER: &str = "control-b";

/// A Lease as it may be read; `renewals` makes it differ.
fn lease(holder: Option<&str>, renewals: i64) -> Lease {
    let spec = LeaseSpec {
        holder_identity: holder.map(str::to_owned),
        lease_duration_seconds: Some(15),
        lease_transitions: Some(7),
        renew_time: Some(MicroTime(Timestamp::from_second(renewals).unwrap())),
        ..LeaseSpec::default()
    };
    Lease { spec: Some(spec), ..Lease::default() }
}

fn seconds_after(start: Instant, seconds: u64) -> Instant {
    start + Duration::from_secs(seconds)
}

/// Every state, as the events lead to it, at second 0.
fn states(start: Instant) -> Vec<(&'static str, Candidate)> {
    let unread = Candidate::new(US);
    let with = |change: &dyn Fn(&mut Candidate)| {
        let mut candidate = unread.clone();
        change(&mut candidate);
        candidate
    };
    vec![
        ("unread", unread.clone()),
        ("absent", with(&|candidate| candidate.on_seen(None, start))),
        ("free", with(&|candidate| candidate.on_seen(Some(lease(None, 0)), start))),
        ("foreign", with(&|candidate| candidate.on_seen(Some(lease(Some(OTHER), 0)), start))),
        ("own", with(&|candidate| candidate.on_written(lease(Some(US), 0), start))),
        (
            "own, contested",
            with(&|candidate| {
                candidate.on_written(lease(Some(US), 0), start);
                candidate.on_conflict();
            }),
        ),
    ]
}

/// What a step is, in a word, and for how long to wait.
fn name(step: &Step, now: Instant) -> String {
    match step {
        Step::Look => "look".to_owned(),
        Step::Create => "create".to_owned(),
        Step::Write(_) => "write".to_owned(),
        Step::Wait(until) => format!("wait {}", until.duration_since(now).as_secs()),
    }
}

fn outcome(candidate: &Candidate, now: Instant) -> String {
    let leads = match candidate.leadership(now) {
        Leadership::Leading => "leads",
        Leadership::Following => "follows",
    };
    format!("{leads}, {}", name(&candidate.step(now), now))
}

/// Every state and every event, one second later.
#[test]
fn every_event_in_every_state() {
    type Event = fn(&mut Candidate, Instant);
    let events: [(&str, Event); 8] = [
        ("nothing", |_, _| {}),
        ("no Lease", |candidate, now| candidate.on_seen(None, now)),
        ("without a holder", |candidate, now| candidate.on_seen(Some(lease(None, 9)), now)),
        ("ours", |candidate, now| candidate.on_seen(Some(lease(Some(US), 9)), now)),
        ("another's", |candidate, now| candidate.on_seen(Some(lease(Some(OTHER), 9)), now)),
        ("written", |candidate, now| candidate.on_written(lease(Some(US), 9), now)),
        ("conflict", |candidate, _| candidate.on_conflict()),
        ("failure", |candidate, now| candidate.on_failure(now)),
    ];
    let expected = [
        (
            "unread",
            [
                "follows, look",
                "follows, create",
                "follows, write",
                "follows, write",
                "follows, wait 2",
                "leads, wait 5",
                "follows, look",
                "follows, wait 1",
            ],
        ),
        (
            "absent",
            [
                "follows, create",
                "follows, create",
                "follows, write",
                "follows, write",
                "follows, wait 2",
                "leads, wait 5",
                "follows, look",
                "follows, wait 1",
            ],
        ),
        (
            "free",
            [
                "follows, write",
                "follows, create",
                "follows, write",
                "follows, write",
                "follows, wait 2",
                "leads, wait 5",
                "follows, look",
                "follows, wait 1",
            ],
        ),
        (
            "foreign",
            [
                "follows, wait 1",
                "follows, create",
                "follows, write",
                "follows, write",
                "follows, wait 2",
                "leads, wait 5",
                "follows, look",
                "follows, wait 1",
            ],
        ),
        (
            "own",
            [
                "leads, wait 4",
                "follows, create",
                "follows, write",
                "leads, write",
                "follows, wait 2",
                "leads, wait 5",
                "leads, look",
                "leads, wait 1",
            ],
        ),
        (
            "own, contested",
            [
                "leads, look",
                "follows, create",
                "follows, write",
                "leads, write",
                "follows, wait 2",
                "leads, wait 5",
                "leads, look",
                "leads, wait 1",
            ],
        ),
    ];
    let start = Instant::now();
    let now = seconds_after(start, 1);
    for ((state, candidate), (named, row)) in states(start).into_iter().zip(expected) {
        assert_eq!(state, named);
        for ((event, happen), expected) in events.iter().zip(row) {
            let mut candidate = candidate.clone();
            happen(&mut candidate, now);
            assert_eq!(outcome(&candidate, now), expected, "{state}: {event}");
        }
    }
}

/// Every state, and what time alone does to it.
#[test]
fn every_state_as_time_passes() {
    let rows = [
        ("unread", [(0, "follows, look"), (9, "follows, look"), (60, "follows, look")]),
        ("absent", [(0, "follows, create"), (9, "follows, create"), (60, "follows, create")]),
        ("free", [(0, "follows, write"), (9, "follows, write"), (60, "follows, write")]),
        // It is looked at every 2 s, and taken when it has not changed for 15 s.
        ("foreign", [(2, "follows, look"), (14, "follows, look"), (15, "follows, write")]),
        ("own", [(4, "leads, wait 1"), (9, "leads, write"), (10, "follows, look")]),
        ("own, contested", [(4, "leads, look"), (9, "leads, look"), (10, "follows, look")]),
    ];
    let start = Instant::now();
    for ((state, candidate), (named, row)) in states(start).into_iter().zip(rows) {
        assert_eq!(state, named);
        for (second, expected) in row {
            assert_eq!(outcome(&candidate, seconds_after(start, second)), expected, "{state} at {second} s");
        }
    }
}

#[test]
fn a_lease_that_changes_never_expires_however_wrong_its_clock() {
    let start = Instant::now();
    let mut candidate = Candidate::new(US);
    for second in (0..120).step_by(5) {
        // The holder's clock is decades behind.
        candidate.on_seen(Some(lease(Some(OTHER), second)), seconds_after(start, second.unsigned_abs()));
        let later = seconds_after(start, second.unsigned_abs() + 4);
        assert_eq!(name(&candidate.step(later), later), "look", "second {second}");
    }
}

#[test]
fn looking_at_an_unchanged_lease_does_not_prolong_it() {
    let start = Instant::now();
    let mut candidate = Candidate::new(US);
    for second in (0..=14).step_by(2) {
        candidate.on_seen(Some(lease(Some(OTHER), 0)), seconds_after(start, second));
    }
    let now = seconds_after(start, 15);
    assert_eq!(candidate.step(now), Step::Write(Box::new(lease(Some(OTHER), 0))));
}

#[test]
fn the_holder_gives_up_before_anybody_can_take_over() {
    // The others saw the renewal at the earliest when its request was sent.
    assert!(GIVE_UP_AFTER < DURATION);
    let start = Instant::now();
    let mut holder = Candidate::new(US);
    holder.on_written(lease(Some(US), 0), start);
    let mut other = Candidate::new(OTHER);
    other.on_seen(Some(lease(Some(US), 0)), start);
    for tenth in 0..300 {
        let now = start + Duration::from_millis(100) * tenth;
        let leads = holder.leadership(now) == Leadership::Leading;
        let takes = matches!(other.step(now), Step::Write(_));
        assert!(!(leads && takes), "both at {:?}", now - start);
    }
}

#[test]
fn the_end_of_our_leadership_is_noticed_while_requests_fail() {
    let start = Instant::now();
    let mut candidate = Candidate::new(US);
    candidate.on_written(lease(Some(US), 0), start);
    let failed = start + Duration::from_millis(9_500);
    candidate.on_failure(failed);
    assert_eq!(candidate.step(failed), Step::Wait(start + GIVE_UP_AFTER));
    assert_eq!(outcome(&candidate, start + GIVE_UP_AFTER), "follows, wait 0");
}

#[test]
fn what_is_written_says_who_holds_it_and_since_when() {
    let calendar = Timestamp::from_second(1_000).unwrap();
    let candidate = Candidate::new(US);
    let claimed = |before: Lease| candidate.claim(before, calendar).spec.unwrap();
    let fields = |spec: &LeaseSpec| {
        (spec.holder_identity.clone(), spec.lease_transitions, spec.acquire_time.clone().map(|time| time.0))
    };
    let us = Some(US.to_owned());
    assert_eq!(fields(&claimed(Lease::default())), (us.clone(), Some(0), Some(calendar)));
    assert_eq!(fields(&claimed(lease(Some(OTHER), 0))), (us.clone(), Some(8), Some(calendar)));
    let ours = claimed(lease(Some(OTHER), 0));
    let renewed = candidate
        .claim(Lease { spec: Some(ours), ..Lease::default() }, Timestamp::from_second(1_005).unwrap());
    let renewed = renewed.spec.unwrap();
    assert_eq!(fields(&renewed), (us, Some(8), Some(calendar)), "a renewal is no transition");
    assert_eq!(renewed.renew_time.unwrap().0.as_second(), 1_005);
}

#[test]
fn only_the_holder_gives_it_up_and_nothing_else_of_it_changes() {
    let start = Instant::now();
    for (state, candidate) in states(start) {
        let released = candidate.release();
        match state {
            "own" => assert_eq!(released, Some(lease(None, 0))),
            _ => assert_eq!(released, None, "{state}"),
        }
    }
}
