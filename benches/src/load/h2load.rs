//! HTTP/2 requests, by h2load: many at once on each connection.

use std::net::SocketAddr;

use ambit_tests::pod::Pod;
use anyhow::{Context, Result, ensure};

/// What h2load counted.
#[derive(Debug, PartialEq)]
pub(crate) struct Requests {
    pub(crate) requests: u64,
    pub(crate) per_second: f64,
}

/// Makes requests over HTTP/2 with prior knowledge, `streams` at once on each of `connections`.
///
/// # Errors
/// When h2load fails, or any request does.
pub(crate) fn run(
    client: &Pod,
    to: SocketAddr,
    (connections, streams): (u16, u16),
    seconds: u32,
) -> Result<Requests> {
    let mut command = client.command("h2load");
    command
        .args(["--clients", &connections.to_string(), "--max-concurrent-streams", &streams.to_string()])
        .args(["--threads", "1", "--duration", &seconds.to_string()])
        .arg(format!("http://{to}/"));
    parse(&ambit_tests::process::succeed(&mut command)?, seconds)
}

/// Of `requests: 100 total, 116 started, 100 done, 100 succeeded, 0 failed, 0 errored, 0 timeout`. What
/// is under way at the end counts as started alone.
fn parse(output: &str, seconds: u32) -> Result<Requests> {
    let line = output.lines().find(|line| line.starts_with("requests: "));
    let line = line.with_context(|| format!("h2load printed {output}"))?;
    let count = |what: &str| -> Result<u64> {
        let part = line.split([',', ':']).find_map(|part| part.strip_suffix(what)).context("its summary")?;
        part.trim().parse().with_context(|| line.to_owned())
    };
    let (done, succeeded) = (count("done")?, count("succeeded")?);
    ensure!(done > 0 && done == succeeded && count("failed")? == 0, "h2load counts errors: {line}");
    Ok(Requests { requests: done, per_second: done as f64 / f64::from(seconds) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_and_silence_are_errors() {
        let summary = |done, succeeded, failed| {
            format!(
                "finished in 2s\nrequests: {done} total, 116 started, {done} done, {succeeded} succeeded, {failed} \
                 failed, 0 errored, 0 timeout\nstatus codes: 100 2xx\n"
            )
        };
        assert_eq!(parse(&summary(100, 100, 0), 2).unwrap(), Requests { requests: 100, per_second: 50.0 });
        for wrong in [summary(0, 0, 0), summary(100, 99, 1), summary(100, 99, 0), "nothing".to_owned()] {
            assert!(parse(&wrong, 2).is_err(), "{wrong}");
        }
    }
}
