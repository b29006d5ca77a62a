//! The second backend, for kernels whose nf_tables lacks what the first one needs: rules for
//! `iptables-restore` and `ip6tables-restore`.
//!
//! What the rules are is in `script`; all functions act on the network namespace the thread is
//! in. The tables are committed one by one, so an error in between leaves a part behind; running
//! again mends it.

mod script;

use std::io::{self, Write};
use std::process::{Command, ExitStatus, Stdio};

use super::rules::RuleSet;

/// Every chain of ours begins with this.
pub const CHAIN_PREFIX: &str = "AMBIT_";

/// An address family: iptables has a program for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

/// Makes our chains what `rules` says.
pub(super) fn install(rules: &RuleSet) -> Result<(), IptablesError> {
    for family in families(rules.ipv6) {
        let script = script::installation(rules, family, &save(family)?);
        restore(family, &script)?;
    }
    Ok(())
}

/// Empties the chains that take new connections. Conntrack goes on translating the open ones.
pub(super) fn stop_capturing(ipv6: bool) -> Result<(), IptablesError> {
    for family in families(ipv6) {
        if let Some(script) = script::stop(&save(family)?) {
            restore(family, &script)?;
        }
    }
    Ok(())
}

/// Removes our chains, if they are there.
pub(super) fn remove(ipv6: bool) -> Result<(), IptablesError> {
    for family in families(ipv6) {
        if let Some(script) = script::removal(&save(family)?) {
            restore(family, &script)?;
        }
    }
    Ok(())
}

/// Why iptables did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum IptablesError {
    /// The program cannot be run.
    #[error("cannot run {program}: install iptables in the agent's image, or use --capture nftables")]
    Run {
        /// The program.
        program: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// The program failed.
    #[error("{program} failed ({status}): {message}")]
    Failed {
        /// The program.
        program: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// What it wrote to its standard error.
        message: String,
    },
}

fn families(ipv6: bool) -> Vec<Family> {
    if ipv6 { vec![Family::V4, Family::V6] } else { vec![Family::V4] }
}

/// All rules of a family as text.
fn save(family: Family) -> Result<String, IptablesError> {
    let program = match family {
        Family::V4 => "iptables-save",
        Family::V6 => "ip6tables-save",
    };
    run(program, &[], "")
}

/// Applies the script and leaves everything that it does not name.
fn restore(family: Family, script: &str) -> Result<(), IptablesError> {
    let program = match family {
        Family::V4 => "iptables-restore",
        Family::V6 => "ip6tables-restore",
    };
    // Waits up to 5 s for another user of the tables.
    run(program, &["--noflush", "--wait", "5"], script).map(|_| ())
}

/// The marks travel by standard input, since everybody can read another process's arguments.
fn run(program: &'static str, arguments: &[&str], input: &str) -> Result<String, IptablesError> {
    let failed = |source| IptablesError::Run { program, source };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().map_err(failed)?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
        return Err(IptablesError::Failed { program, status: output.status, message });
    }
    written.map_err(failed)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
