//! HTTP requests at a fixed rate, however long the answers take (an open loop).
//!
//! Each connection has a plan: its requests are due at equal distances. The latency of one counts from
//! when it was due, also when the connection was still waiting for the answer before: a path that
//! stalls delays all that is due meanwhile, and is seen to (no coordinated omission).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use ambit_tests::namespace::Namespace;
use anyhow::{Context, Result, anyhow, ensure};
use nix::sys::prctl;

use crate::cases::Pace;

/// What became of the requests.
#[derive(Debug)]
pub(crate) struct Answers {
    /// In microseconds, the least first.
    latencies: Vec<f64>,
    /// How many were answered, of those that were due.
    pub(crate) answered: u64,
    due: u64,
    /// From the first that was due to the last answer.
    seconds: f64,
}

/// Answers of one connection, and how many were due.
struct OfOne {
    latencies: Vec<f64>,
    due: u64,
    last_answer: Instant,
}

/// The plan of one connection.
#[derive(Clone, Copy, Debug)]
struct Plan {
    start: Instant,
    apart: Duration,
    requests: u32,
    /// When to give up; what is due and not answered by then has at least the latency until then.
    end: Instant,
}

/// Makes the requests for so long, to an nginx that answers `body`.
///
/// # Errors
/// When a connection does not open or breaks, or when an answer is not right and whole.
pub(crate) fn run(from: &Namespace, to: SocketAddr, body: &str, pace: Pace, seconds: u32) -> Result<Answers> {
    let connections = u32::from(pace.connections);
    let apart = Duration::from_secs(1) * connections / pace.per_second;
    from.inside(|| {
        let open = (0..connections).map(|_| Connection::open(to, body)).collect::<Result<Vec<_>>>()?;
        let start = Instant::now() + LEAD;
        let end = start + Duration::from_secs(seconds.into()) + GRACE;
        let plan = |number: u32| Plan {
            start: start + apart * number / connections,
            apart,
            requests: (pace.per_second * seconds).div_ceil(connections),
            end,
        };
        thread::scope(|scope| {
            let threads: Vec<_> = (0..)
                .zip(open)
                .map(|(number, connection)| scope.spawn(move || connection.keep(plan(number))))
                .collect();
            let of_each = threads
                .into_iter()
                .map(|thread| thread.join().map_err(|panic| anyhow!("a client panicked: {panic:?}"))?);
            Ok(Answers::of(of_each.collect::<Result<Vec<_>>>()?, start))
        })
    })
}

/// Until the first request is due, so that all threads run by then.
const LEAD: Duration = Duration::from_millis(20);
/// How much later than planned the answers may come.
const GRACE: Duration = Duration::from_secs(1);
/// How long an answer may take at all.
const LIMIT: Duration = Duration::from_secs(20);

impl Answers {
    fn of(connections: Vec<OfOne>, start: Instant) -> Self {
        let answered = connections.iter().map(|one| one.latencies.len() as u64).sum();
        let due = connections.iter().map(|one| one.due).sum();
        let last = connections.iter().map(|one| one.last_answer).max().unwrap_or(start);
        let mut latencies: Vec<f64> = connections.into_iter().flat_map(|one| one.latencies).collect();
        latencies.sort_by(f64::total_cmp);
        Self { latencies, answered, due, seconds: last.duration_since(start).as_secs_f64() }
    }

    /// The latency that a part of the requests did not exceed, in microseconds.
    pub(crate) fn quantile(&self, part: f64) -> Result<f64> {
        let rank = (self.due as f64 * part).ceil() as usize;
        // What was not answered ranks behind everything that was.
        let at = rank.max(1).min(self.latencies.len()).saturating_sub(1);
        self.latencies.get(at).copied().context("no request was answered")
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.answered as f64 / self.seconds
    }
}

/// A connection to the server, after its first answer.
struct Connection<'a> {
    stream: TcpStream,
    request: String,
    body: &'a str,
    buffer: Vec<u8>,
}

impl<'a> Connection<'a> {
    fn open(to: SocketAddr, body: &'a str) -> Result<Self> {
        let mut stream =
            TcpStream::connect_timeout(&to, LIMIT).with_context(|| format!("connecting to {to}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LIMIT))?;
        let request = format!("GET / HTTP/1.1\r\nhost: {to}\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut buffer = vec![0; 1 << 14];
        let mut filled = 0;
        // All answers are as long as the first one, which ends with the body.
        while !buffer[..filled].ends_with(body.as_bytes()) {
            let count = stream.read(&mut buffer[filled..])?;
            ensure!(count > 0, "the first answer ends early");
            filled += count;
        }
        buffer.truncate(filled);
        ensure!(is_right(&buffer, body), "the first answer is {:?}", String::from_utf8_lossy(&buffer));
        Ok(Self { stream, request, body, buffer })
    }

    /// Makes the requests of a plan.
    fn keep(mut self, plan: Plan) -> Result<OfOne> {
        // The kernel would wake this thread up to 50 us late otherwise, which looks like latency.
        prctl::set_timerslack(1)?;
        let mut latencies = Vec::with_capacity(plan.requests as usize);
        let mut last_answer = plan.start;
        for number in 0..plan.requests {
            let due = plan.start + plan.apart * number;
            let now = Instant::now();
            if now >= plan.end {
                break;
            }
            thread::sleep(due.saturating_duration_since(now));
            self.ask()?;
            last_answer = Instant::now();
            latencies.push((last_answer - due).as_secs_f64() * 1e6);
        }
        Ok(OfOne { latencies, due: plan.requests.into(), last_answer })
    }

    fn ask(&mut self) -> Result<()> {
        self.stream.write_all(self.request.as_bytes())?;
        self.stream.read_exact(&mut self.buffer)?;
        ensure!(
            is_right(&self.buffer, self.body),
            "an answer is {:?}",
            String::from_utf8_lossy(&self.buffer)
        );
        Ok(())
    }
}

fn is_right(answer: &[u8], body: &str) -> bool {
    answer.starts_with(b"HTTP/1.1 200 ") && answer.ends_with(body.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(latencies: &[f64], due: u64) -> Answers {
        let start = Instant::now();
        let last_answer = start + Duration::from_secs(2);
        Answers::of(vec![OfOne { latencies: latencies.to_vec(), due, last_answer }], start)
    }

    #[test]
    fn quantiles_are_values_that_occurred() {
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let answers = answers(&hundred, 100);
        for (part, value) in [(0.5, 50.0), (0.99, 99.0), (0.999, 100.0)] {
            assert_eq!(answers.quantile(part).unwrap(), value, "{part}");
        }
        assert_eq!(answers.per_second(), 50.0);
    }

    #[test]
    fn what_was_not_answered_counts_as_slow() {
        let answers = answers(&[1.0, 2.0, 3.0, 4.0], 8);
        assert_eq!(answers.quantile(0.5).unwrap(), 4.0);
        assert!(self::answers(&[], 8).quantile(0.5).is_err());
    }

    #[test]
    fn an_answer_is_right_with_its_status_and_body() {
        assert!(is_right(b"HTTP/1.1 200 OK\r\n\r\nbody", "body"));
        assert!(!is_right(b"HTTP/1.1 503 OK\r\n\r\nbody", "body"));
        assert!(!is_right(b"HTTP/1.1 200 OK\r\n\r\nbod", "body"));
    }
}
