//! Metrics of the process itself, under the names that Prometheus' client libraries use, and
//! `istio_build`.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use metrics::{counter, describe_counter, describe_gauge, gauge};

/// Registers what does not change.
pub(super) fn describe(component: &'static str) {
    describe_gauge!("istio_build", "Which component this is, and its version as tag.");
    describe_gauge!("process_start_time_seconds", "When the process started, in seconds since 1970.");
    describe_gauge!("process_open_fds", "Open file descriptors.");
    describe_gauge!("process_max_fds", "How many file descriptors may be open.");
    describe_gauge!("process_resident_memory_bytes", "Memory in use.");
    describe_counter!("ambit_log_lines_dropped_total", "Log lines dropped because nobody read them in time.");
    gauge!("istio_build", "component" => component, "tag" => env!("CARGO_PKG_VERSION")).set(1.0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    gauge!("process_start_time_seconds").set(now.as_secs_f64());
    counter!("ambit_log_lines_dropped_total").increment(0);
}

/// Reads what changes. What cannot be read keeps its last value.
pub(super) fn update() {
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // Reading the directory takes a descriptor of its own.
        gauge!("process_open_fds").set(open.count().saturating_sub(1) as f64);
    }
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    if let Some(max) = number_after(&limits, "Max open files") {
        gauge!("process_max_fds").set(max);
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(kibibytes) = number_after(&status, "VmRSS:") {
        gauge!("process_resident_memory_bytes").set(kibibytes * 1024.0);
    }
}

/// The first number in the line that begins with `name`.
fn number_after(text: &str, name: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_in_proc() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max open files            1024                 1048576              files\n";
        assert_eq!(number_after(limits, "Max open files"), Some(1024.0));
        assert_eq!(number_after("VmPeak: 9 kB\nVmRSS:\t  2048 kB\n", "VmRSS:"), Some(2048.0));
        assert_eq!(number_after("Max open files  unlimited", "Max open files"), None);
        assert_eq!(number_after("", "VmRSS:"), None);
    }
}
