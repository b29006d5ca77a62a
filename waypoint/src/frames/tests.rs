use std::time::Duration;

use super::*;

fn frame(kind: u8, flags: u8, length: u8) -> Vec<u8> {
    let mut octets = vec![0, 0, length, kind, flags, 0, 0, 0, 1];
    octets.resize(9 + usize::from(length), 0);
    octets
}

fn begun(now: Instant) -> FrameWatch {
    let mut watch = FrameWatch::new(PeerRole::Client, now);
    watch.received(&[0; PREFACE], now).unwrap();
    watch
}

#[test]
fn each_kind_has_its_end() {
    let now = Instant::now();
    for (kind, flags, length, most, flood) in [
        (PING, 0, 8, PINGS.0, Flood::Ping),
        (SETTINGS_FRAME, 0, 0, SETTINGS.0, Flood::Settings),
        (WINDOW_UPDATE, 0, 4, WINDOW_UPDATES.0, Flood::WindowUpdate),
        (RST_STREAM, 0, 4, RAPID_RESETS.0, Flood::RapidReset),
        (DATA, 0, 0, EMPTY_DATA.0, Flood::EmptyData),
        (2, 0, 5, IGNORED.0, Flood::Ignored),
        (77, 0, 0, IGNORED.0, Flood::Ignored),
    ] {
        let mut watch = begun(now);
        let one = frame(kind, flags, length);
        for _ in 0..most {
            watch.received(&one, now).unwrap();
        }
        assert_eq!(watch.received(&one, now), Err(flood));
        // A second later it may go on at its rate.
        assert_eq!(watch.received(&one, now + Duration::from_secs(1)), Ok(()), "{flood}");
    }
}

#[test]
fn octets_count_however_they_are_cut() {
    let now = Instant::now();
    let stream = [frame(PING, 0, 8), frame(HEADERS, END_HEADERS, 3), frame(DATA, 0, 7)].concat();
    for size in 1..stream.len() {
        let mut watch = FrameWatch::new(PeerRole::Server, now);
        for _ in 0..PINGS.0 {
            for piece in stream.chunks(size) {
                watch.received(piece, now).unwrap();
            }
        }
        // Each PING was paid for by the data behind it.
        assert_eq!(watch.received.frames(), u64::from(PINGS.0) * 3);
    }
}

#[test]
fn work_pays_for_what_it_brings_along() {
    let now = Instant::now();
    let mut watch = begun(now);
    for _ in 0..20 * RAPID_RESETS.0 {
        watch.received(&frame(HEADERS, END_HEADERS, 3), now).unwrap();
        watch.sent(&frame(HEADERS, END_HEADERS, 3));
        watch.received(&frame(RST_STREAM, 0, 4), now).unwrap();
        watch.sent(&frame(DATA, 0, 200));
        watch.received(&frame(WINDOW_UPDATE, 0, 4), now).unwrap();
        watch.received(&frame(WINDOW_UPDATE, 0, 4), now).unwrap();
        watch.received(&frame(PING, 0, 8), now).unwrap();
    }
}

#[test]
fn what_has_begun_is_told_until_it_ends() {
    let now = Instant::now();
    let mut watch = begun(now);
    let progress = watch.progress();
    let mut stuck = |octets: &[u8]| {
        watch.received(octets, now).unwrap();
        progress.is_stuck_at(progress.mark())
    };
    assert!(!stuck(&[]));
    assert!(stuck(&frame(PING, 0, 8)[..4]), "in the middle of a head");
    assert!(!stuck(&frame(PING, 0, 8)[4..]));
    assert!(stuck(&frame(HEADERS, 0, 3)), "the block goes on");
    assert!(!stuck(&frame(CONTINUATION, END_HEADERS, 3)));
    assert!(stuck(&frame(HEADERS, END_HEADERS, 3)[..10]), "in the middle of a block");
    assert!(!stuck(&frame(HEADERS, END_HEADERS, 3)[10..]));
    assert!(!stuck(&frame(DATA, 0, 7)[..12]), "a body may take its time");
}

#[test]
fn a_connection_is_left_long_before_its_empty_frames_are_a_flood() {
    let now = Instant::now();
    let mut watch = begun(now);
    let progress = watch.progress();
    let mut is_worn_by = |octets: &[u8]| {
        watch.received(octets, now).unwrap();
        progress.is_worn()
    };
    let empty = frame(DATA, 0, 0);
    for _ in 1..WORN {
        let octets = [empty.clone(), frame(DATA, END_STREAM, 0), frame(DATA, 0, 7)].concat();
        assert!(!is_worn_by(&octets));
    }
    assert!(is_worn_by(&empty));
}

#[test]
fn a_farewell_waits_for_the_end_of_a_frame_and_is_said_once() {
    let mut watch = begun(Instant::now());
    watch.progress().announce_end();
    assert!(watch.owed().is_empty(), "SETTINGS go first");
    watch.sent(&frame(SETTINGS_FRAME, 0, 6)[..12]);
    assert!(watch.owed().is_empty(), "in the middle of a frame");
    watch.sent(&frame(SETTINGS_FRAME, 0, 6)[12..]);
    assert_eq!(watch.owed(), GOAWAY);
    watch.paid(5);
    assert_eq!(watch.owed(), &GOAWAY[5..]);
    watch.paid(12);
    watch.sent(&frame(DATA, 0, 6));
    assert!(watch.owed().is_empty());
}
