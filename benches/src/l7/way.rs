//! The ways from a client to a Service, and what stands on each.

use std::fmt;
use std::sync::Arc;

use ambit_tests::agent::sum_of_series;
use ambit_tests::http;
use ambit_tests::mesh::Service;
use ambit_tests::namespace::Namespace;
use ambit_tests::pod::Pod;
use ambit_tests::wait::{self, SOON};
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::lane::body;
use crate::proxies::Proxy;
use crate::usage::{self, Memory};

/// A way from the client to the Service. The agents at both ends are the same on all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Way {
    /// From agent to agent.
    Direct,
    /// Through Envoy as the waypoint.
    Envoy,
    /// Through Ambit's waypoint.
    Ambit,
}

impl Way {
    pub(crate) const ALL: [Self; 3] = [Self::Direct, Self::Envoy, Self::Ambit];

    /// Its name, which is that of its namespace too.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Envoy => "envoy",
            Self::Ambit => "ambit",
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A way that stands.
pub(crate) struct Lane {
    pub(crate) way: Way,
    pub(crate) client: Pod,
    pub(crate) service: Service,
    /// None on the direct way.
    pub(crate) waypoint: Option<Running>,
}

/// A waypoint's process, and where it counts requests.
pub(crate) struct Running {
    pub(crate) namespace: Arc<Namespace>,
    pub(crate) pid: u32,
    /// Port and path of its metrics.
    pub(crate) page: (u16, &'static str),
    /// The counter of requests that were answered with 200, and the labels of the series that count.
    pub(crate) counter: (&'static str, &'static [&'static str]),
    /// Ends with this value. A waypoint of Ambit belongs to the stand instead.
    pub(crate) _proxy: Option<Proxy>,
}

impl Running {
    /// Requests that it has answered so far.
    ///
    /// # Errors
    /// When it does not tell.
    pub(crate) fn answered(&self) -> Result<u64> {
        let text = http::get(&self.namespace, self.page.0, self.page.1)?;
        // A counter of requests stays far below the numbers that a float cannot hold.
        Ok(sum_of_series(&text, self.counter.0, self.counter.1) as u64)
    }

    /// Its memory now.
    ///
    /// # Errors
    /// When it has ended.
    pub(crate) fn memory(&self) -> Result<Memory> {
        usage::memory(self.pid)
    }
}

impl Lane {
    /// Insists on the right answer, and on its having passed the waypoint.
    ///
    /// # Errors
    /// When either is not so.
    pub(crate) fn check(&self) -> Result<()> {
        let answer = || self.client.get(self.service.v4())?.expect_body(&body());
        wait::until(format!("{} to carry a request", self.way), SOON, answer)?;
        self.watched(|_| 1, || self.client.get(self.service.v4())?.expect_body(&body())).map(drop)
    }

    /// Does the work, and returns with its outcome the seconds of processor time that the waypoint took;
    /// none on the direct way. Insists on its having answered as many requests as `requests` says.
    ///
    /// # Errors
    /// Those of the work, and when the requests went another way.
    pub(crate) fn watched<T>(
        &self,
        requests: impl FnOnce(&T) -> u64,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<(T, Option<f64>)> {
        let Some(waypoint) = &self.waypoint else { return Ok((work()?, None)) };
        let answered = waypoint.answered()?;
        let before = usage::cpu_seconds(waypoint.pid)?;
        let outcome = work()?;
        let seconds = usage::cpu_seconds(waypoint.pid)? - before;
        let wanted = requests(&outcome);
        wait::until(format!("the waypoint of {} to have answered {wanted} requests", self.way), SOON, || {
            let grown = waypoint.answered()? - answered;
            ensure!(grown >= wanted, "it has answered {grown}");
            Ok(())
        })
        .context("not all went through the waypoint")?;
        Ok((outcome, Some(seconds)))
    }
}
