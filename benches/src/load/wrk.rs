//! HTTP requests, by wrk: as many as each connection can make one after the other.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use ambit_tests::pod::Pod;
use ambit_tests::sandbox::WORK;
use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::lane::expect_whole_answers;

/// Whether a connection serves more than one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Connections {
    Kept,
    ClosedAfterEach,
}

/// What wrk counted. Times in microseconds.
#[derive(Debug, Deserialize)]
pub(crate) struct Requests {
    pub(crate) requests: u64,
    duration: f64,
    bytes: u64,
    /// Of connecting, reading, writing, time and status, added up.
    errors: u64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

impl Requests {
    pub(crate) fn per_second(&self) -> f64 {
        self.requests as f64 / (self.duration / 1e6)
    }
}

/// Makes requests on `open` connections at once.
///
/// # Errors
/// When wrk fails, or any request does.
pub(crate) fn run(
    client: &Pod,
    to: SocketAddr,
    open: u32,
    connections: Connections,
    seconds: u32,
) -> Result<Requests> {
    let script = Path::new(WORK).join("wrk.lua");
    fs::write(&script, SCRIPT)?;
    let mut command = client.command("wrk");
    command
        .args(["--threads", "1", "--connections", &open.to_string(), "--duration", &format!("{seconds}s")])
        // A machine that is busy for a moment makes a slow answer, not a wrong one.
        .args(["--timeout", "10s", "--script"])
        .arg(&script);
    if connections == Connections::ClosedAfterEach {
        command.args(["--header", "Connection: close"]);
    }
    command.arg(format!("http://{to}/"));
    let counted = parse(&ambit_tests::process::succeed(&mut command)?)?;
    let answer = answer_octets(client, to, connections)?;
    expect_whole_answers(counted.requests, counted.bytes, answer, u64::from(open))?;
    Ok(counted)
}

/// wrk's own summary has its times as text with changing units.
const SCRIPT: &str = r#"
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\nsummary {"requests":%d,"duration":%d,"bytes":%d,"errors":%d,"p50":%d,"p99":%d}\n',
    summary.requests, summary.duration, summary.bytes,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"#;

fn parse(output: &str) -> Result<Requests> {
    let summary = output.lines().find_map(|line| line.strip_prefix("summary "));
    let counted: Requests = serde_json::from_str(summary.with_context(|| format!("wrk printed {output}"))?)?;
    ensure!(counted.requests > 0, "wrk had no answer: {counted:?}");
    ensure!(counted.errors == 0, "wrk counts errors: {counted:?}");
    Ok(counted)
}

/// Octets of one right answer, its head included.
fn answer_octets(client: &Pod, to: SocketAddr, connections: Connections) -> Result<u64> {
    let url = format!("http://{to}/");
    let close: &[&str] = match connections {
        Connections::Kept => &[],
        Connections::ClosedAfterEach => &["--header", "Connection: close"],
    };
    let common = ["--silent", "--show-error", "--fail", "--noproxy", "*", "--max-time", "10"];
    let format = ["--output", "/dev/null", "--write-out", "%{size_header} %{size_download}", &url];
    let text = client.run("curl", &[&common[..], close, &format].concat())?;
    text.split(' ').map(|size| size.parse::<u64>().with_context(|| format!("curl printed {text:?}"))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_and_silence_are_errors() {
        let summary = |requests, errors| {
            format!(
                "Running 2s test\nsummary {{\"requests\":{requests},\"duration\":2000000,\"bytes\":9,\"errors\":{errors},\"p50\":1,\"p99\":2}}\n"
            )
        };
        assert!((parse(&summary(10, 0)).unwrap().per_second() - 5.0).abs() < f64::EPSILON);
        assert!(parse(&summary(0, 0)).is_err());
        assert!(parse(&summary(10, 1)).is_err());
        assert!(parse("unable to connect").is_err());
    }
}
