//! What the figures were measured on: only their ratios carry over to another machine.

use std::fs;
use std::process::Command;
use std::thread;

use anyhow::Result;

/// The processor, the kernel, how busy it is, and the versions of the programs that are not ours.
///
/// # Errors
/// When one of them cannot be asked.
pub(crate) fn describe() -> Result<String> {
    let processors = fs::read_to_string("/proc/cpuinfo")?;
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let load = fs::read_to_string("/proc/loadavg")?;
    let mut lines = vec![format!(
        "{} x {}, Linux {}, load before the run {}",
        thread::available_parallelism()?,
        model.trim_start_matches(['\t', ' ', ':']),
        kernel.trim(),
        load.split(' ').next().unwrap_or_default()
    )];
    let envoy = ambit_tests::sandbox::envoy()?;
    for (program, argument) in [
        ("haproxy", "-v"),
        ("nginx", "-v"),
        ("wrk", "-v"),
        ("iperf3", "--version"),
        (&envoy.to_string_lossy(), "--version"),
    ] {
        lines.push(version(program, argument)?);
    }
    Ok(lines.join("\n"))
}

/// The first line with anything in it; some programs print it as an error.
fn version(program: &str, argument: &str) -> Result<String> {
    let output = Command::new(program).arg(argument).output()?;
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    Ok(text.lines().find(|line| !line.trim().is_empty()).unwrap_or(program).trim().to_owned())
}
