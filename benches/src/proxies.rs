//! The proxies of a path: what they use, and what they say they have carried.

use std::sync::Arc;

use ambit_tests::agent::sum_of_series;
use ambit_tests::http;
use ambit_tests::namespace::Namespace;
use ambit_tests::process::Process;
use ambit_tests::wait::{self, SOON};
use anyhow::{Context, Result, ensure};

use crate::usage::{self, Memory};

pub(crate) mod agents;
pub(crate) mod envoy;
pub(crate) mod haproxy;
pub(crate) mod istio;
mod redirect;

/// One proxy at each end.
pub(crate) struct Proxies {
    pub(crate) client: Proxy,
    pub(crate) server: Proxy,
}

/// How many connections both ends have carried.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Carried {
    client: u64,
    server: u64,
}

impl Proxies {
    /// Processor time so far, both ends together, in seconds: of one process, where it carries both.
    ///
    /// # Errors
    /// When one has ended.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        if self.client.pid == self.server.pid {
            return usage::cpu_seconds(self.client.pid);
        }
        Ok(usage::cpu_seconds(self.client.pid)? + usage::cpu_seconds(self.server.pid)?)
    }

    /// How many connections they have carried so far.
    ///
    /// # Errors
    /// When one does not tell.
    pub(crate) fn carried(&self) -> Result<Carried> {
        Ok(Carried { client: self.client.carried()?, server: self.server.carried()? })
    }

    /// How many connections the client's proxy has passed on to where they were bound for, without a
    /// tunnel.
    ///
    /// # Errors
    /// When it does not tell.
    pub(crate) fn passed(&self) -> Result<u64> {
        let (metric, labels) = self.client.metrics.passed;
        self.client.series(metric, labels)
    }

    /// Insists on both having carried so many more than `before`.
    ///
    /// # Errors
    /// When one has not.
    pub(crate) fn expect_carried(&self, before: Carried, connections: u64) -> Result<()> {
        for (proxy, before) in [(&self.client, before.client), (&self.server, before.server)] {
            wait::until(format!("{} to have carried {connections} connections", proxy.name), SOON, || {
                let carried = proxy.carried()? - before;
                ensure!(carried >= connections, "it carried {carried}");
                Ok(())
            })?;
        }
        Ok(())
    }
}

/// One proxy.
pub(crate) struct Proxy {
    name: String,
    pid: u32,
    metrics: Metrics,
    /// Ends with this value. An agent belongs to the mesh instead.
    _process: Option<Process>,
}

/// Where a proxy counts the connections that it has carried.
pub(crate) struct Metrics {
    pub(crate) namespace: Arc<Namespace>,
    /// Port and path of its metrics on the loopback of `namespace`.
    pub(crate) page: (u16, &'static str),
    /// The counter, and labels of the series that count.
    pub(crate) carried: (&'static str, &'static [&'static str]),
    /// The same of connections that it passes on without a tunnel.
    pub(crate) passed: (&'static str, &'static [&'static str]),
}

impl Metrics {
    /// The metrics page.
    ///
    /// # Errors
    /// When nobody serves it.
    pub(crate) fn text(&self) -> Result<String> {
        http::get(&self.namespace, self.page.0, self.page.1)
    }
}

impl Proxy {
    fn own(name: &str, process: Process, metrics: Metrics) -> Self {
        Self { name: name.to_owned(), pid: process.pid(), metrics, _process: Some(process) }
    }

    fn borrowed(name: &str, process: &Process, metrics: Metrics) -> Self {
        Self { name: name.to_owned(), pid: process.pid(), metrics, _process: None }
    }

    /// The number of its process.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Its memory now.
    ///
    /// # Errors
    /// When it has ended.
    pub(crate) fn memory(&self) -> Result<Memory> {
        usage::memory(self.pid).with_context(|| self.name.clone())
    }

    fn carried(&self) -> Result<u64> {
        let (metric, labels) = self.metrics.carried;
        self.series(metric, labels)
    }

    /// The sum of its series of a counter that have these labels.
    ///
    /// # Errors
    /// When it does not tell.
    pub(crate) fn series(&self, metric: &str, labels: &[&str]) -> Result<u64> {
        let text = self.metrics.text().with_context(|| self.name.clone())?;
        // A counter of connections stays far below the numbers that a float cannot hold.
        Ok(sum_of_series(&text, metric, labels) as u64)
    }
}
