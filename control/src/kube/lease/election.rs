//! When to read, take, renew or give up a Lease. Pure.
//!
//! Clocks of different machines are never compared: a Lease has expired when we have not seen it change
//! for as long as its holder promised to. What we hold counts from the moment in which the request
//! that renewed it was sent, which is before anybody can have seen it, and only for
//! [`GIVE_UP_AFTER`], which is shorter than what others wait.
//!
//! ```text
//!            seen: none          seen: free or ours        written
//! Unread ───────────────► Absent ─────┐   ┌──────────► Own ◄────────┐
//!   ▲  │ seen: another's              ▼   │             │ │ renewed │
//!   │  └──────────────► Foreign ──► (write)             │ └─────────┘
//!   └────────── conflict ◄────────────────┴─────────────┘ conflict, or not renewed in time
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;

use super::Leadership;

/// What others wait after they last saw the Lease change.
pub const DURATION: Duration = Duration::from_secs(15);

/// How often the holder renews it.
pub const RENEW_EVERY: Duration = Duration::from_secs(5);

/// For how long a renewal counts for the holder itself. The rest of [`DURATION`] is for requests that
/// are under way when it ends.
pub const GIVE_UP_AFTER: Duration = Duration::from_secs(10);

/// How often others look: a Lease that is given up is taken as soon.
pub const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The pause after a request that failed.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

/// One replica in the election.
#[derive(Clone, Debug)]
pub struct Candidate {
    identity: Arc<str>,
    state: State,
    /// Until when our last renewal counts.
    leads_until: Option<Instant>,
    not_before: Option<Instant>,
}

/// What is known of the Lease.
#[derive(Clone, Debug)]
enum State {
    /// Nothing, or nothing that is still true.
    Unread,
    /// There is none.
    Absent,
    /// Nobody holds it, or a former process of our own name.
    Free(Box<Lease>),
    /// Another holds it.
    Foreign { lease: Box<Lease>, changed_at: Instant, seen_at: Instant },
    /// We hold it.
    Own { lease: Box<Lease>, renewed_at: Instant },
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Read the Lease.
    Look,
    /// Create it.
    Create,
    /// Write ourselves into it, on condition that it is still this one.
    Write(Box<Lease>),
    /// Nothing before this moment.
    Wait(Instant),
}

impl Candidate {
    /// A candidate that knows nothing yet.
    pub fn new(identity: &str) -> Self {
        Self { identity: identity.into(), state: State::Unread, leads_until: None, not_before: None }
    }

    /// What is to be done at this moment.
    pub fn step(&self, now: Instant) -> Step {
        if let Some(not_before) = self.not_before.filter(|not_before| now < *not_before) {
            // The end of our leadership has to be noticed also while requests fail.
            let end = self.leads_until.filter(|until| *until > now);
            return Step::Wait(end.map_or(not_before, |end| end.min(not_before)));
        }
        match &self.state {
            State::Unread => Step::Look,
            State::Absent => Step::Create,
            State::Free(lease) => Step::Write(lease.clone()),
            State::Foreign { lease, changed_at, seen_at } => {
                let expires = *changed_at + promised(lease);
                let look = *seen_at + LOOK_EVERY;
                // What was seen is looked at again before it is taken: it is taken on condition that
                // it has not changed since, so that a look after the expiry gains nothing.
                match (now >= expires, now >= look) {
                    (true, _) => Step::Write(lease.clone()),
                    (false, true) => Step::Look,
                    (false, false) => Step::Wait(expires.min(look)),
                }
            }
            State::Own { renewed_at, .. } if now >= *renewed_at + GIVE_UP_AFTER => Step::Look,
            State::Own { lease, renewed_at } if now >= *renewed_at + RENEW_EVERY => {
                Step::Write(lease.clone())
            }
            State::Own { renewed_at, .. } => Step::Wait(*renewed_at + RENEW_EVERY),
        }
    }

    /// Whether we may work as leader at this moment.
    pub fn leadership(&self, now: Instant) -> Leadership {
        match self.leads_until {
            Some(until) if now < until => Leadership::Leading,
            Some(_) | None => Leadership::Following,
        }
    }

    /// Until when we lead if nothing renews it.
    pub fn leads_until(&self) -> Option<Instant> {
        self.leads_until
    }

    /// The Lease was read; `None` when there is none.
    pub fn on_seen(&mut self, lease: Option<Lease>, now: Instant) {
        self.not_before = None;
        let Some(lease) = lease.map(Box::new) else {
            // Another can create it at once.
            self.leads_until = None;
            self.state = State::Absent;
            return;
        };
        match holder(&lease) {
            Some(holder) if *holder == *self.identity => self.state = State::Free(lease),
            Some(_) => {
                let changed_at = self.unchanged_since(&lease).unwrap_or(now);
                self.leads_until = None;
                self.state = State::Foreign { lease, changed_at, seen_at: now };
            }
            None => {
                self.leads_until = None;
                self.state = State::Free(lease);
            }
        }
    }

    fn unchanged_since(&self, lease: &Lease) -> Option<Instant> {
        match &self.state {
            State::Foreign { lease: before, changed_at, .. } => {
                (before.spec == lease.spec).then_some(*changed_at)
            }
            State::Unread | State::Absent | State::Free(_) | State::Own { .. } => None,
        }
    }

    /// We have written ourselves in, by a request sent at `sent`.
    pub fn on_written(&mut self, lease: Lease, sent: Instant) {
        self.not_before = None;
        self.leads_until = Some(sent + GIVE_UP_AFTER);
        self.state = State::Own { lease: Box::new(lease), renewed_at: sent };
    }

    /// The Lease is not the one that we wanted to write over. If we lead, our last renewal still
    /// counts: nobody takes a Lease that is renewed.
    pub fn on_conflict(&mut self) {
        self.not_before = None;
        self.state = State::Unread;
    }

    /// A request failed. Whether it has done its work is unknown: the version it was conditional on
    /// tells at the next.
    pub fn on_failure(&mut self, now: Instant) {
        self.not_before = Some(now + RETRY_AFTER);
    }

    /// The Lease with ourselves as holder, as it is to be written at this moment of the calendar.
    pub fn claim(&self, mut lease: Lease, calendar: Timestamp) -> Lease {
        let before = lease.spec.take();
        // The first holder is no transition.
        let transitions = before.as_ref().map_or(-1, |spec| spec.lease_transitions.unwrap_or_default());
        let before = before.unwrap_or_default();
        let is_ours = before.holder_identity.as_deref() == Some(&*self.identity);
        let now = Some(MicroTime(calendar));
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.identity.to_string()),
            lease_duration_seconds: Some(seconds(DURATION)),
            acquire_time: if is_ours { before.acquire_time.or(now.clone()) } else { now.clone() },
            renew_time: now,
            lease_transitions: Some(if is_ours { transitions } else { transitions.saturating_add(1) }),
            ..LeaseSpec::default()
        });
        lease
    }

    /// The Lease without us, if it is ours to give up.
    pub fn release(self) -> Option<Lease> {
        let State::Own { mut lease, .. } = self.state else { return None };
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = None;
        Some(*lease)
    }
}

fn holder(lease: &Lease) -> Option<Arc<str>> {
    let holder = lease.spec.as_ref()?.holder_identity.as_deref()?;
    (!holder.is_empty()).then(|| holder.into())
}

/// How long its holder wants to be waited for.
fn promised(lease: &Lease) -> Duration {
    let seconds = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
    seconds
        .and_then(|seconds| u64::try_from(seconds).ok())
        .filter(|seconds| *seconds > 0)
        .map_or(DURATION, Duration::from_secs)
}

fn seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_secs()).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
