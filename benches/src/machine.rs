//! What the figures were measured on: only their ratios carry over to another machine.

use std::fs;
use std::process::Command;
use std::thread;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::figures::Versus;
use crate::proxies::istio;

/// The machine and the programs that are not ours.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// The processor, the kernel, how busy it is, and the programs, one a line.
    pub(crate) lines: Vec<String>,
    pub(crate) peers: Peers,
}

/// Versions of what Ambit is compared with.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Peers {
    pub(crate) envoy: String,
    pub(crate) haproxy: String,
    /// The name of Istio's ztunnel with its version, where it is measured.
    pub(crate) istio: Option<String>,
}

impl Peers {
    /// Whose figures those are, with the version.
    pub(crate) fn name(&self, versus: Versus) -> String {
        match versus {
            Versus::Plain => "no proxy".to_owned(),
            Versus::Relay => format!("HAProxy {}", self.haproxy),
            Versus::BetterPeer => match &self.istio {
                None => format!("Envoy {}", self.envoy),
                Some(istio) => format!("better of Envoy {} and {istio}", self.envoy),
            },
        }
    }
}

/// What there is to know of it; of Istio's ztunnel where its program is inside of the sandbox.
///
/// # Errors
/// When a program cannot be asked.
pub(crate) fn describe() -> Result<Machine> {
    let processors = fs::read_to_string("/proc/cpuinfo")?;
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let read = |path: &str| fs::read_to_string(format!("/proc/{path}"));
    let (kernel, load) = (read("sys/kernel/osrelease")?, read("loadavg")?);
    let congestion = read("sys/net/ipv4/tcp_congestion_control")?;
    let mut lines = vec![format!(
        "{} x {}, Linux {}, congestion control {}, load before the run {}",
        thread::available_parallelism()?,
        model.trim_start_matches(['\t', ' ', ':']),
        kernel.trim(),
        congestion.trim(),
        load.split(' ').next().unwrap_or_default()
    )];
    let envoy = version(&ambit_tests::sandbox::envoy()?.to_string_lossy(), "--version")?;
    let haproxy = version("haproxy", "-v")?;
    let ztunnel = istio::program();
    let istio = ztunnel.exists().then(|| version(&ztunnel.to_string_lossy(), "version")).transpose()?;
    let peers = Peers {
        envoy: envoy_number(&envoy),
        haproxy: haproxy_number(&haproxy),
        istio: istio.as_deref().map(istio_name),
    };
    // The key exchange of `relay-tls` depends on it.
    let openssl = line_with("haproxy", "-vv", "Running on OpenSSL version")?;
    lines.extend([format!("{haproxy}, {openssl}"), envoy]);
    lines.extend(istio.map(|istio| format!("Istio's ztunnel: {istio}")));
    for (program, argument) in [("nginx", "-v"), ("wrk", "-v")] {
        lines.push(version(program, argument)?);
    }
    Ok(Machine { lines, peers })
}

/// The first line with anything in it; some programs print it as an error.
fn version(program: &str, argument: &str) -> Result<String> {
    let output = Command::new(program).arg(argument).output()?;
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    Ok(text.lines().find(|line| !line.trim().is_empty()).unwrap_or(program).trim().to_owned())
}

/// The line that begins so; nothing where there is none.
fn line_with(program: &str, argument: &str, beginning: &str) -> Result<String> {
    let output = Command::new(program).arg(argument).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().find(|line| line.starts_with(beginning)).unwrap_or_default().to_owned())
}

/// Of `envoy  version: <commit>/1.40.0/Clean/RELEASE/BoringSSL`.
fn envoy_number(line: &str) -> String {
    line.split('/').rev().nth(3).unwrap_or(line).to_owned()
}

/// Of `HAProxy version 2.6.12-1+deb12u3 2025/10/03 - https://haproxy.org/`.
fn haproxy_number(line: &str) -> String {
    let word = line.split_whitespace().nth(2).unwrap_or(line);
    word.split('-').next().unwrap_or(word).to_owned()
}

/// Of `version.BuildInfo{Version:"1.28.0", GitRevision:"...", ...}`: one that was built from a plain copy
/// of its source does not know it.
fn istio_name(line: &str) -> String {
    let word = line.split("Version:\"").nth(1).and_then(|rest| rest.split('"').next());
    match word {
        None | Some("" | "unknown") => "Istio's ztunnel".to_owned(),
        Some(number) => format!("Istio's ztunnel {number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_say() {
        let envoy = "/run/envoy/envoy  version: 1a2b/1.40.0/Clean/RELEASE/BoringSSL";
        assert_eq!(envoy_number(envoy), "1.40.0");
        assert_eq!(
            haproxy_number("HAProxy version 2.6.12-1+deb12u3 2025/10/03 - https://haproxy.org/"),
            "2.6.12"
        );
        assert_eq!(haproxy_number("HAProxy"), "HAProxy");
        for (version, name) in [("1.28.0", "Istio's ztunnel 1.28.0"), ("unknown", "Istio's ztunnel")] {
            let line = format!("version.BuildInfo{{Version:\"{version}\", GitRevision:\"unknown\"}}");
            assert_eq!(istio_name(&line), name);
        }
    }

    #[test]
    fn the_better_peer_is_of_those_that_were_measured() {
        let mut peers = Peers { envoy: "1.40.0".into(), haproxy: "2.6".into(), istio: None };
        assert_eq!(peers.name(Versus::BetterPeer), "Envoy 1.40.0");
        peers.istio = Some("Istio's ztunnel 1.28.0".into());
        assert_eq!(peers.name(Versus::BetterPeer), "better of Envoy 1.40.0 and Istio's ztunnel 1.28.0");
    }
}
