//! Bulk data from the client to the server, by iperf3.

use ambit_tests::apps::IPERF3;
use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::lane::Lane;

/// What arrived.
pub(crate) struct Bulk {
    pub(crate) octets: f64,
    pub(crate) bits_per_second: f64,
}

/// Sends on `streams` connections at once.
///
/// # Errors
/// When iperf3 fails or nothing arrives.
pub(crate) fn run(lane: &Lane, streams: u32, seconds: u32) -> Result<Bulk> {
    let server = lane.server.at(IPERF3);
    let (host, port) = (server.ip().to_string(), server.port().to_string());
    let text = lane.client.run(
        "iperf3",
        &[
            &["--client", &host, "--port", &port, "--json"],
            &["--parallel", &streams.to_string(), "--time", &seconds.to_string()][..],
        ]
        .concat(),
    )?;
    parse(&text)
}

fn parse(report: &str) -> Result<Bulk> {
    let value: Value = serde_json::from_str(report)?;
    ensure!(value.get("error").is_none(), "iperf3: {}", value["error"]);
    let received = &value["end"]["sum_received"];
    let number = |key: &str| {
        received[key]
            .as_f64()
            .filter(|number| *number > 0.0)
            .with_context(|| format!("iperf3 received {received}"))
    };
    Ok(Bulk { octets: number("bytes")?, bits_per_second: number("bits_per_second")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_received_is_an_error() {
        let report = r#"{"end":{"sum_received":{"bytes":250,"bits_per_second":1000.5}}}"#;
        assert!((parse(report).unwrap().octets - 250.0).abs() < f64::EPSILON);
        assert!(parse(r#"{"end":{"sum_received":{"bytes":0,"bits_per_second":0}}}"#).is_err());
        assert!(parse(r#"{"end":{}}"#).is_err());
        assert!(parse(r#"{"error":"refused"}"#).is_err());
    }
}
