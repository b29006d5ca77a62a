//! Capture for the proxies that do not bring their own: one rule, told from their own connections by
//! their user, as sidecars do it.

use std::io::Write;
use std::process::Stdio;

use ambit_tests::pod::Pod;
use anyhow::{Context, Result, ensure};

/// The user that proxies run as.
pub(crate) const PROXY_USER: &str = "1337";
/// Where they take what the pod's applications open; the port of Ambit's agent, too.
pub(crate) const OUTBOUND: u16 = 15001;
/// Where they take what comes to the pod; the port of Ambit's agent, too.
pub(crate) const INBOUND: u16 = 15006;

/// Sends every TCP connection that an application of the pod opens to [`OUTBOUND`].
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn outbound(pod: &Pod) -> Result<()> {
    nft(
        pod,
        &format!(
            "add table inet capture
             add chain inet capture output {{ type nat hook output priority -100; }}
             add rule inet capture output oifname != lo meta skuid != {PROXY_USER} meta l4proto tcp \
             redirect to :{OUTBOUND}\n"
        ),
    )
}

/// Sends every TCP connection that comes to the pod to [`INBOUND`].
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn inbound(pod: &Pod) -> Result<()> {
    nft(
        pod,
        &format!(
            "add table inet capture
             add chain inet capture prerouting {{ type nat hook prerouting priority -100; }}
             add rule inet capture prerouting iifname != lo meta l4proto tcp redirect to :{INBOUND}\n"
        ),
    )
}

fn nft(pod: &Pod, script: &str) -> Result<()> {
    let mut child = pod
        .command("nft")
        .args(["--file", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("nft cannot be started")?;
    child.stdin.take().context("stdin was piped")?.write_all(script.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "nft: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
