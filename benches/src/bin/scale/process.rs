//! What a process has used, from `/proc`.

use std::fs;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// Processor time in seconds, user and system together, of all threads.
///
/// # Errors
/// When the process is gone.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    let text = read(pid, "stat")?;
    // proc_pid_stat(5): utime and stime are fields 14 and 15; the name before may hold anything.
    let (_, after_name) = text.rsplit_once(')').context("no name in stat")?;
    let ticks: u64 =
        after_name.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<u64>().ok()).sum();
    Ok(ticks as f64 / TICKS_PER_SECOND)
}

/// USER_HZ of the kernel's interface; the same on every architecture that we build for.
const TICKS_PER_SECOND: f64 = 100.0;

/// Memory of a process in MB (10^6 octets).
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Memory {
    /// Pages of no file, now.
    pub(crate) anonymous: f64,
    /// All pages, now.
    pub(crate) resident: f64,
    /// All pages, at their most.
    pub(crate) peak: f64,
}

/// Memory of a process now.
///
/// # Errors
/// When the process is gone.
pub(crate) fn memory(pid: u32) -> Result<Memory> {
    let text = read(pid, "status")?;
    let value = |key: &str| -> Result<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(key)).with_context(|| key.to_owned())?;
        let kibibytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kibibytes * 1024.0 / 1e6)
    };
    Ok(Memory { anonymous: value("RssAnon:")?, resident: value("VmRSS:")?, peak: value("VmHWM:")? })
}

fn read(pid: u32, file: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).with_context(|| path.clone())
}
