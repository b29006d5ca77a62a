use metrics::{Label, counter, gauge, histogram, with_local_recorder};

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn registry(max_series: usize) -> Arc<Registry> {
    Arc::new(Registry::new(Settings { idle_expiry: HOUR / 2, max_series }))
}

fn key(name: &'static str, workload: &'static str) -> Key {
    Key::from_parts(name, vec![Label::new("workload", workload)])
}

#[test]
fn metrics_are_written_in_the_text_format() {
    let registry = registry(10);
    with_local_recorder(&Recorder(Arc::clone(&registry)), || {
        metrics::describe_counter!("requests_total", "What was asked.\nEach one");
        counter!("requests_total", "path" => "/a\"b\\c\nd").increment(2);
        counter!("requests_total").increment(1);
        gauge!("open").set(1.5);
        for seconds in [0.0005, 0.2, 60.0] {
            histogram!("seconds", "kind" => "x").record(seconds);
        }
    });
    let text = registry.render();
    let expected = "# TYPE open gauge\nopen 1.5\n\
                    # HELP requests_total What was asked.\\nEach one\n\
                    # TYPE requests_total counter\n\
                    requests_total 1\n\
                    requests_total{path=\"/a\\\"b\\\\c\\nd\"} 2\n\
                    # TYPE seconds histogram\n\
                    seconds_bucket{kind=\"x\",le=\"0.0005\"} 1\n";
    assert!(text.starts_with(expected), "{text}");
    let end = "seconds_bucket{kind=\"x\",le=\"0.25\"} 2\n";
    assert!(text.contains(end), "{text}");
    let end = "seconds_bucket{kind=\"x\",le=\"+Inf\"} 3\n\
               seconds_sum{kind=\"x\"} 60.2005\nseconds_count{kind=\"x\"} 3\n";
    assert!(text.ends_with(end), "{text}");
}

#[test]
fn a_series_that_nobody_holds_ends_after_its_idle_time() {
    let (registry, start) = (registry(10), Instant::now());
    registry.counter(&key("istio_tcp_sent_bytes_total", "cart"), start).increment(5);
    let shown = |now| {
        registry.expire(now);
        registry.render().contains("workload=\"cart\"} 5")
    };
    assert!(shown(start));
    assert!(shown(start + HOUR / 2));
    assert!(!shown(start + HOUR));
}

#[test]
fn a_series_that_changed_stays_for_another_idle_time() {
    let (registry, start) = (registry(10), Instant::now());
    let key = key("istio_tcp_sent_bytes_total", "cart");
    registry.counter(&key, start).increment(5);
    registry.expire(start);
    registry.counter(&key, start + HOUR).increment(5);
    registry.expire(start + HOUR);
    registry.expire(start + HOUR + HOUR / 2);
    assert!(registry.render().contains("} 10\n"));
}

#[test]
fn a_series_that_somebody_holds_never_ends() {
    let (registry, start) = (registry(10), Instant::now());
    let handle = registry.counter(&key("istio_tcp_sent_bytes_total", "cart"), start);
    registry.expire(start);
    registry.expire(start + 10 * HOUR);
    handle.increment(7);
    assert!(registry.render().contains("} 7\n"));
}

#[test]
fn families_of_closed_label_sets_stay() {
    let (registry, start) = (registry(10), Instant::now());
    registry.counter(&key("ambit_log_lines_dropped_total", "x"), start).increment(1);
    registry.gauge(&key("istio_tcp_sockets_open", "x"), start).set(1.0);
    registry.expire(start);
    registry.expire(start + 10 * HOUR);
    assert_eq!(registry.render().matches("workload=\"x\"").count(), 2);
}

#[test]
fn a_full_family_refuses_new_series_until_old_ones_expire() {
    let (registry, start) = (registry(2), Instant::now());
    let name = "istio_tcp_sent_bytes_total";
    for workload in ["a", "b", "c", "a"] {
        registry.counter(&key(name, workload), start).increment(1);
    }
    let text = registry.render();
    assert!(text.contains("workload=\"a\"} 2\n"), "{text}");
    assert!(!text.contains("workload=\"c\""), "{text}");
    assert!(text.contains("ambit_metrics_series_refused_total 1\n"), "{text}");
    registry.expire(start);
    registry.counter(&key(name, "c"), start + HOUR).increment(1);
    assert!(registry.render().contains("workload=\"c\"} 1\n"));
}

#[test]
fn a_name_has_one_kind() {
    let (registry, start) = (registry(10), Instant::now());
    registry.counter(&key("x", "a"), start).increment(1);
    registry.gauge(&key("x", "a"), start).set(5.0);
    registry.histogram(&key("x", "b"), start).record(5.0);
    assert_eq!(registry.render(), "# TYPE x counter\nx{workload=\"a\"} 1\n");
}
