//! Ambit: control, and the agent of each node with the capture it brings.

use ambit_tests::agent::Agent;
use ambit_tests::mesh::Mesh;
use anyhow::{Result, ensure};

use super::{Metrics, Proxies, Proxy};
use crate::lane::{CLIENT_NODE, SERVER_NODE};
use crate::pin::{End, Processors};

/// Starts them and waits until both pods are captured.
///
/// # Errors
/// When one does not become ready.
pub(crate) fn start(mesh: &Mesh, server_node: &str, processors: Processors) -> Result<Proxies> {
    mesh.start_control()?;
    for (end, node) in [(End::Client, CLIENT_NODE), (End::Server, SERVER_NODE)] {
        processors.on(end, || mesh.agent(node).start())?;
    }
    mesh.wait_until_captured()?;
    Ok(Proxies {
        client: proxy(
            mesh.agent(CLIENT_NODE),
            &["reporter=\"source\"", "connection_security_policy=\"mutual_tls\""],
        )?,
        server: proxy(
            mesh.agent(server_node),
            &["reporter=\"destination\"", "connection_security_policy=\"mutual_tls\""],
        )?,
    })
}

/// An agent that counts what it carried over HBONE.
fn proxy(agent: &Agent, labels: &'static [&'static str]) -> Result<Proxy> {
    let metrics = Metrics {
        namespace: agent.namespace().clone(),
        page: (15020, "/metrics"),
        carried: ("istio_tcp_connections_opened_total", labels),
        passed: (
            "istio_tcp_connections_opened_total",
            &["reporter=\"source\"", "connection_security_policy=\"unknown\""],
        ),
    };
    Ok(Proxy::borrowed(&format!("ztunnel on {}", agent.node()), &*agent.process()?, metrics))
}

/// Insists on the agents having written a line for every connection: what is not logged is not
/// the same work.
///
/// # Errors
/// When one has dropped lines.
pub(crate) fn expect_complete_logs(mesh: &Mesh) -> Result<()> {
    for agent in mesh.agents() {
        let dropped = agent.metric("ambit_log_lines_dropped_total", &[""])?;
        ensure!(dropped == 0.0, "ztunnel on {} dropped {dropped} lines of its log", agent.node());
    }
    Ok(())
}
