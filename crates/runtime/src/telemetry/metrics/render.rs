//! Prometheus' text format, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use std::fmt::Write;
use std::sync::atomic::Ordering;

use metrics::Key;

use super::registry::{BUCKETS, Family, HistogramValue};

/// The labels of a key between the braces of a line.
pub(super) fn labels(key: &Key) -> String {
    let mut text = String::new();
    for label in key.labels() {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(label.key());
        text.push_str("=\"");
        for c in label.value().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                c => text.push(c),
            }
        }
        text.push('"');
    }
    text
}

/// One family.
pub(super) fn family(text: &mut String, name: &str, help: Option<&str>, family: &Family) {
    if let Some(help) = help {
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        line(text, format_args!("# HELP {name} {help}"));
    }
    match family {
        Family::Counter(all) => {
            line(text, format_args!("# TYPE {name} counter"));
            for (labels, series) in all {
                line(text, format_args!("{name}{} {}", braces(labels), series.value.load(Ordering::Relaxed)));
            }
        }
        Family::Gauge(all) => {
            line(text, format_args!("# TYPE {name} gauge"));
            for (labels, value) in all {
                let value = f64::from_bits(value.load(Ordering::Relaxed));
                line(text, format_args!("{name}{} {value}", braces(labels)));
            }
        }
        Family::Histogram(all) => {
            line(text, format_args!("# TYPE {name} histogram"));
            for (labels, value) in all {
                histogram(text, name, labels, value);
            }
        }
    }
}

/// How many series were refused.
pub(super) fn refused(text: &mut String, name: &str, count: u64) {
    line(text, format_args!("# HELP {name} Label sets not recorded because their family is full."));
    line(text, format_args!("# TYPE {name} counter\n{name} {count}"));
}

fn histogram(text: &mut String, name: &str, labels: &str, value: &HistogramValue) {
    let separator = if labels.is_empty() { "" } else { "," };
    let bounds = BUCKETS.iter().map(f64::to_string).chain(["+Inf".into()]);
    let mut count = 0;
    for (bound, in_bucket) in bounds.zip(&value.counts) {
        count += in_bucket.load(Ordering::Relaxed);
        line(text, format_args!("{name}_bucket{{{labels}{separator}le=\"{bound}\"}} {count}"));
    }
    let sum = f64::from_bits(value.sum.load(Ordering::Relaxed));
    line(text, format_args!("{name}_sum{} {sum}", braces(labels)));
    line(text, format_args!("{name}_count{} {count}", braces(labels)));
}

fn braces(labels: &str) -> String {
    if labels.is_empty() { String::new() } else { format!("{{{labels}}}") }
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a String does not fail.
    let _written = writeln!(text, "{line}");
}
