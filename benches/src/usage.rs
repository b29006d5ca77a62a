//! What a process has used: processor time and memory, from `/proc`.

use std::fs;

use anyhow::{Context, Result};

/// Processor time in seconds, user and system together, of all threads.
///
/// # Errors
/// When the process is gone.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    ticks(&text).map(|ticks| ticks as f64 / TICKS_PER_SECOND).with_context(|| format!("{path}: {text:?}"))
}

/// USER_HZ of the kernel's interface; the same on every architecture that we build for.
const TICKS_PER_SECOND: f64 = 100.0;

/// proc_pid_stat(5): utime and stime are fields 14 and 15. The second, the program's name, stands in
/// parentheses and may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut from_utime = after_name.split_whitespace().skip(11);
    let mut next = || from_utime.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

/// Memory of a process in octets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Memory {
    /// Proportional set: shared pages count in parts.
    pub(crate) proportional: f64,
    /// Pages that belong to no file.
    pub(crate) anonymous: f64,
}

/// Memory of a process now.
///
/// # Errors
/// When the process is gone.
pub(crate) fn memory(pid: u32) -> Result<Memory> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    parse_rollup(&text).with_context(|| format!("{path}: {text:?}"))
}

fn parse_rollup(rollup: &str) -> Option<Memory> {
    let octets = |key: &str| {
        let line = rollup.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        Some(line.trim().strip_suffix(" kB")?.parse::<f64>().ok()? * 1024.0)
    };
    Some(Memory { proportional: octets("Pss")?, anonymous: octets("Anonymous")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_found_behind_any_name() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 100 1000 10";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(ticks("7 (a"), None);
    }

    #[test]
    fn memory_is_read_in_octets() {
        let rollup = "55d0-7ffd ---p 00000000 00:00 0 [rollup]\nRss:  900 kB\nPss:                 480 kB\n\
                      Pss_Dirty: 7 kB\nAnonymous:           160 kB\n";
        let memory = Memory { proportional: 480.0 * 1024.0, anonymous: 160.0 * 1024.0 };
        assert_eq!(parse_rollup(rollup), Some(memory));
        assert_eq!(parse_rollup("Pss: 1 kB\n"), None);
    }
}
