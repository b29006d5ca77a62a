//! One stage: its work, round by round, and the memory of the waypoints.

use std::fmt;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::report::Taken;
use super::way::{Lane, Way};
use super::{Settings, Stage, stand};
use crate::cases::{Metric, Pace};
use crate::lane::body;
use crate::load::wrk::{self, Connections};
use crate::load::{h2load, paced};
use crate::pin::{End, Processors};

/// What is done on every way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Work {
    /// HTTP/1.1 requests one after the other on each of so many connections that stay open.
    Http { connections: u16 },
    /// HTTP/2 requests, so many at once on each of so many connections.
    Http2 { connections: u16, streams: u16 },
    /// HTTP/1.1 requests at a fixed rate.
    Paced(Pace),
    /// What the waypoint keeps in memory after the other work.
    Memory,
    /// The same while connections are open and idle, each after one request.
    MemoryIdle { connections: u16 },
}

impl Work {
    /// What is done in rounds in a stage: in the first one how the ways compare, in others what the
    /// configuration costs.
    fn of(stage: Stage) -> &'static [Self] {
        if stage == Stage::BASE {
            &[
                Self::Http { connections: 1 },
                Self::Http { connections: 64 },
                Self::Http2 { connections: 4, streams: 16 },
                Self::Paced(Pace { per_second: 500, connections: 8 }),
                Self::Paced(Pace { per_second: 2000, connections: 16 }),
            ]
        } else if stage.rules > 1000 {
            // Sixty-four requests at once would wait longer for Envoy than a measurement takes.
            &[Self::Http { connections: 1 }]
        } else {
            &[Self::Http { connections: 64 }]
        }
    }

    /// Without a waypoint HTTP/2 would reach the server, which speaks HTTP/1.1.
    fn exists_on(self, way: Way) -> bool {
        match self {
            Self::Http2 { .. } => way != Way::Direct,
            Self::Http { .. } | Self::Paced(_) | Self::Memory | Self::MemoryIdle { .. } => true,
        }
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { connections } => write!(f, "http-{connections}"),
            Self::Http2 { connections, streams } => write!(f, "http2-{connections}x{streams}"),
            Self::Paced(Pace { per_second, .. }) => write!(f, "paced-{per_second}"),
            Self::Memory => f.write_str("memory"),
            Self::MemoryIdle { connections } => write!(f, "memory, {connections} idle connections"),
        }
    }
}

/// Idle connections that memory is measured with.
const IDLE: u16 = 1000;

/// Measures a stage.
///
/// # Errors
/// When any measurement fails.
pub(super) fn stage(settings: &Settings, stage: Stage) -> Result<Taken> {
    let processors = settings.pin.processors()?;
    let stand = stand::lanes(settings, stage, processors)?;
    let lanes = &stand.lanes;
    let mut taken = Taken::default();
    for round in 0..=settings.rounds {
        let counts = round > 0;
        for (number, work) in Work::of(stage).iter().enumerate() {
            for place in 0..lanes.len() {
                let lane = &lanes[(place + number + round as usize) % lanes.len()];
                if !work.exists_on(lane.way) {
                    continue;
                }
                let readings = once(lane, *work, settings.seconds, processors)
                    .with_context(|| format!("{work} in {stage}, {}, round {round}", lane.way))?;
                for (metric, value) in readings.into_iter().filter(|_| counts) {
                    taken.add(stage, *work, metric, lane.way, value);
                }
            }
        }
        eprintln!("{stage}: {round} of {} rounds", settings.rounds);
    }
    for lane in lanes {
        memory(lane, stage, Work::Memory, &mut taken)?;
        if stage == Stage::BASE {
            let held = processors.on(End::Client, || idle(lane, IDLE))?;
            memory(lane, stage, Work::MemoryIdle { connections: IDLE }, &mut taken)?;
            drop(held);
        }
    }
    for agent in stand.mesh.agents() {
        let dropped = agent.metric("ambit_log_lines_dropped_total", &[""])?;
        ensure!(dropped == 0.0, "ztunnel on {} dropped {dropped} lines of its log", agent.node());
    }
    Ok(taken)
}

type Readings = Vec<(Metric, f64)>;

fn once(lane: &Lane, work: Work, seconds: u32, processors: Processors) -> Result<Readings> {
    let to = lane.service.v4();
    // The load is the client's.
    processors.on(End::Client, || match work {
        Work::Http { connections } => {
            let load = || wrk::run(&lane.client, to, connections.into(), Connections::Kept, seconds);
            let (made, cpu) = lane.watched(|made| made.requests, load)?;
            let latency = [(Metric::LatencyMedian, made.p50), (Metric::Latency99, made.p99)];
            Ok(with_cpu((Metric::Requests, made.per_second()), &latency, made.requests, cpu))
        }
        Work::Http2 { connections, streams } => {
            let load = || h2load::run(&lane.client, to, (connections, streams), seconds);
            let (made, cpu) = lane.watched(|made| made.requests, load)?;
            Ok(with_cpu((Metric::Requests, made.per_second), &[], made.requests, cpu))
        }
        Work::Paced(pace) => {
            let load = || paced::run(lane.client.namespace(), to, &body(), pace, seconds);
            let (answers, cpu) = lane.watched(|answers| answers.answered, load)?;
            let latency = [
                (Metric::LatencyMedian, answers.quantile(0.5)?),
                (Metric::Latency99, answers.quantile(0.99)?),
            ];
            Ok(with_cpu((Metric::Requests, answers.per_second()), &latency, answers.answered, cpu))
        }
        Work::Memory | Work::MemoryIdle { .. } => unreachable!("memory is not taken in rounds"),
    })
}

fn with_cpu(rate: (Metric, f64), latency: &[(Metric, f64)], requests: u64, cpu: Option<f64>) -> Readings {
    let cpu = cpu.map(|seconds| (Metric::CpuPerTenThousand, seconds / (requests as f64 / 1e4)));
    [rate].into_iter().chain(latency.iter().copied()).chain(cpu).collect()
}

fn memory(lane: &Lane, stage: Stage, work: Work, taken: &mut Taken) -> Result<()> {
    let Some(waypoint) = &lane.waypoint else { return Ok(()) };
    let memory = waypoint.memory()?;
    taken.add(stage, work, Metric::ServerProportional, lane.way, memory.proportional);
    taken.add(stage, work, Metric::ServerAnonymous, lane.way, memory.anonymous);
    Ok(())
}

/// Connections that are open after one request each.
fn idle(lane: &Lane, count: u16) -> Result<Vec<TcpStream>> {
    let to = lane.service.v4();
    let request = format!("GET / HTTP/1.1\r\nhost: {to}\r\n\r\n");
    let body = body();
    lane.client.namespace().inside(|| {
        let open = |_| {
            let mut stream = TcpStream::connect_timeout(&to, LIMIT)?;
            stream.set_read_timeout(Some(LIMIT))?;
            stream.write_all(request.as_bytes())?;
            let mut answer = Vec::new();
            while !answer.ends_with(body.as_bytes()) {
                let mut buffer = [0; 4096];
                let count = stream.read(&mut buffer)?;
                ensure!(count > 0, "an answer ends early");
                answer.extend_from_slice(&buffer[..count]);
            }
            Ok(stream)
        };
        (0..count).map(open).collect()
    })
}

/// How long one of them may take.
const LIMIT: Duration = Duration::from_secs(20);
