use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge, histogram, with_local_recorder};
use proptest::prelude::*;

use super::*;

const SENT: &str = "istio_tcp_sent_bytes_total";

/// One whose series expire when they are looked at again.
fn forgetful(max_series: usize) -> Arc<Recorder> {
    Arc::new(Recorder::new(Settings { idle_expiry: Duration::ZERO, max_series }))
}

fn sent(workload: &'static str) -> Counter {
    counter!(SENT, "workload" => workload)
}

/// Looks until the clock has moved on and the line is gone.
fn goes(recorder: &Recorder, line: &str) -> bool {
    (0..1_000_000).any(|_| !recorder.render().contains(line))
}

fn stays(recorder: &Recorder, line: &str) -> bool {
    (0..10).all(|_| recorder.render().contains(line))
}

#[test]
fn metrics_are_written_in_the_text_format() {
    let recorder = forgetful(10);
    let held = with_local_recorder(&recorder, || {
        metrics::describe_counter!(SENT, "Octets sent.");
        metrics::describe_gauge!("open", "What is open.\nNow.");
        gauge!("open", "path" => "/a\"b\\c\nd").set(1.5);
        counter!("requests_total").increment(2);
        for seconds in [0.0005, 0.2, 60.0] {
            histogram!("seconds", "kind" => "x").record(seconds);
        }
        sent("cart")
    });
    let text = recorder.render();
    let expected = "# HELP ambit_metrics_series_refused_total Series not recorded because there are too many.\n\
                    # TYPE ambit_metrics_series_refused_total counter\n\
                    ambit_metrics_series_refused_total 0\n\
                    # HELP istio_tcp_sent_bytes_total Octets sent.\n\
                    # TYPE istio_tcp_sent_bytes_total counter\n\
                    istio_tcp_sent_bytes_total{workload=\"cart\"} 0\n\
                    # HELP open What is open.\\nNow.\n\
                    # TYPE open gauge\n\
                    open{path=\"/a\\\"b\\\\c\\nd\"} 1.5\n\
                    # TYPE requests_total counter\n\
                    requests_total 2\n\
                    # TYPE seconds histogram\n\
                    seconds_bucket{kind=\"x\",le=\"0.0005\"} 1\n";
    assert!(text.starts_with(expected), "{text}");
    let middle = "seconds_bucket{kind=\"x\",le=\"0.25\"} 2\n";
    assert!(text.contains(middle), "{text}");
    let end = "seconds_bucket{kind=\"x\",le=\"+Inf\"} 3\n\
               seconds_sum{kind=\"x\"} 60.2005\nseconds_count{kind=\"x\"} 3\n";
    assert!(text.ends_with(end), "{text}");
    drop(held);
}

proptest! {
    #[test]
    fn label_values_can_be_read_back(value in "[\\\\\"\na]{0,8}|.{0,8}") {
        let recorder = forgetful(10);
        with_local_recorder(&recorder, || gauge!("x", "label" => value.clone()).set(1.0));
        let text = recorder.render();
        let written = text.lines().find_map(|line| line.strip_prefix("x{label=\"")?.strip_suffix("\"} 1"));
        prop_assert_eq!(unescaped(written.unwrap()), value);
    }
}

/// Reads a label's value as Prometheus does.
fn unescaped(written: &str) -> String {
    let mut chars = written.chars();
    let mut value = String::new();
    while let Some(c) = chars.next() {
        assert_ne!(c, '"', "{written}");
        value.push(match c {
            '\\' => match chars.next().unwrap() {
                'n' => '\n',
                c @ ('\\' | '"') => c,
                c => panic!("\\{c} in {written}"),
            },
            c => c,
        });
    }
    value
}

#[test]
fn a_series_that_nobody_holds_ends() {
    let recorder = forgetful(10);
    with_local_recorder(&recorder, || sent("cart").increment(5));
    assert!(recorder.render().contains("{workload=\"cart\"} 5\n"));
    assert!(goes(&recorder, "workload=\"cart\""));
    with_local_recorder(&recorder, || sent("cart").increment(2));
    assert!(recorder.render().contains("{workload=\"cart\"} 2\n"));
}

#[test]
fn a_series_stays_for_its_idle_time() {
    let recorder =
        Arc::new(Recorder::new(Settings { idle_expiry: Duration::from_secs(3600), max_series: 10 }));
    with_local_recorder(&recorder, || sent("cart").increment(5));
    assert!(stays(&recorder, "{workload=\"cart\"} 5\n"));
}

#[test]
fn a_series_that_somebody_holds_never_ends() {
    let recorder = forgetful(10);
    let handles = with_local_recorder(&recorder, || [sent("cart"), sent("cart")]);
    assert!(stays(&recorder, "{workload=\"cart\"} 0\n"));
    let [one, other] = handles;
    one.increment(7);
    drop(one);
    assert!(stays(&recorder, "{workload=\"cart\"} 7\n"));
    drop(other);
    assert!(goes(&recorder, "workload=\"cart\""));
}

#[test]
fn metrics_with_labels_of_closed_sets_stay() {
    let recorder = forgetful(10);
    with_local_recorder(&recorder, || {
        counter!("ambit_log_lines_dropped_total").increment(1);
        gauge!("istio_tcp_sockets_open").set(2.0);
        histogram!("istio_tcp_x_seconds").record(3.0);
    });
    for line in ["ambit_log_lines_dropped_total 1", "istio_tcp_sockets_open 2", "istio_tcp_x_seconds_count 1"]
    {
        assert!(stays(&recorder, line), "{line}");
    }
}

#[test]
fn what_is_too_many_is_refused_until_series_end() {
    let recorder = forgetful(2);
    with_local_recorder(&recorder, || {
        for workload in ["a", "b", "c", "a"] {
            sent(workload).increment(1);
        }
    });
    let text = recorder.render();
    assert!(text.contains("{workload=\"a\"} 2\n"), "{text}");
    assert!(!text.contains("workload=\"c\""), "{text}");
    assert!(text.contains("ambit_metrics_series_refused_total 1\n"), "{text}");
    assert!(goes(&recorder, "workload=\"a\""));
    with_local_recorder(&recorder, || sent("c").increment(1));
    assert!(recorder.render().contains("{workload=\"c\"} 1\n"));
}

#[test]
fn series_end_also_when_nobody_reads_them() {
    let recorder = forgetful(1);
    with_local_recorder(&recorder, || sent("a").increment(1));
    let has_room = || {
        recorder.keep_up();
        with_local_recorder(&recorder, || sent("b").increment(1));
        recorder.expiring.handle().render().contains("workload=\"b\"")
    };
    assert!((0..1_000_000).any(|_| has_room()));
}
