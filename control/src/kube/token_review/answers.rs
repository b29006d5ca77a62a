//! What the API server has said of tokens lately, by their SHA-256. Pure: the clock's reading is an
//! argument.
//!
//! Each kind of answer has a limit of its own, so that no flood of bad tokens drives out what is
//! known of good ones.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::decide::{Bound, Refusal};

/// SHA-256 of a token.
pub(super) type TokenDigest = [u8; 32];

/// A token that was confirmed is believed so long, or until it expires.
pub(super) const KEEP_CONFIRMED: Duration = Duration::from_secs(60);

/// A token that was refused is not asked about again for so long.
const KEEP_REFUSED: Duration = Duration::from_secs(5);

/// Confirmed tokens: one for each node, and two while it is rotated.
const MOST_CONFIRMED: usize = 20_000;

/// Refused tokens.
const MOST_REFUSED: usize = 2_000;

/// The answers.
#[derive(Debug, Default)]
pub(super) struct Answers {
    confirmed: Kept<Bound>,
    refused: Kept<Refusal>,
}

impl Answers {
    pub(super) fn of(&self, token: &TokenDigest, now: Instant) -> Option<Result<Bound, Refusal>> {
        let confirmed = self.confirmed.of(token, now).map(|bound| Ok(bound.clone()));
        confirmed.or_else(|| self.refused.of(token, now).map(|refusal| Err(refusal.clone())))
    }

    /// Keeps an answer; `life` is how long the token is still valid.
    pub(super) fn keep(
        &mut self,
        token: TokenDigest,
        answer: &Result<Bound, Refusal>,
        life: Duration,
        now: Instant,
    ) {
        match answer {
            Ok(bound) => {
                self.confirmed.keep(token, bound.clone(), now + life.min(KEEP_CONFIRMED), MOST_CONFIRMED);
            }
            Err(refusal) => self.refused.keep(token, refusal.clone(), now + KEEP_REFUSED, MOST_REFUSED),
        }
    }
}

/// Answers of one kind, in the order in which they came.
#[derive(Debug)]
struct Kept<T> {
    by_token: HashMap<TokenDigest, (T, Instant)>,
    in_order: VecDeque<TokenDigest>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self { by_token: HashMap::new(), in_order: VecDeque::new() }
    }
}

impl<T> Kept<T> {
    fn of(&self, token: &TokenDigest, now: Instant) -> Option<&T> {
        self.by_token.get(token).filter(|(_, until)| *until > now).map(|(answer, _)| answer)
    }

    /// The oldest one goes when there are too many.
    fn keep(&mut self, token: TokenDigest, answer: T, until: Instant, most: usize) {
        if self.by_token.insert(token, (answer, until)).is_none() {
            self.in_order.push_back(token);
        }
        if self.in_order.len() > most
            && let Some(oldest) = self.in_order.pop_front()
        {
            self.by_token.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::token_review::decide::Account;

    fn bound(node: &str) -> Bound {
        let account = Account { namespace: "ambit-system".into(), name: "ztunnel".into() };
        Bound { account, pod: "ztunnel-x".into(), uid: "u".into(), node: node.into() }
    }

    fn digest(number: usize) -> TokenDigest {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&number.to_be_bytes());
        digest
    }

    #[test]
    fn an_answer_ends_with_its_time_and_with_the_token() {
        let start = Instant::now();
        let seconds = Duration::from_secs;
        let mut answers = Answers::default();
        answers.keep(digest(1), &Ok(bound("long")), seconds(3600), start);
        answers.keep(digest(2), &Ok(bound("short")), seconds(10), start);
        answers.keep(digest(3), &Err(Refusal::Expired), seconds(3600), start);
        let known = |after| {
            [1, 2, 3].map(|number| {
                answers.of(&digest(number), start + seconds(after)).map(|answer| answer.is_ok())
            })
        };
        assert_eq!(known(4), [Some(true), Some(true), Some(false)]);
        assert_eq!(known(9), [Some(true), Some(true), None]);
        assert_eq!(known(10), [Some(true), None, None]);
        assert_eq!(known(60), [None, None, None]);
    }

    #[test]
    fn bad_tokens_drive_out_bad_tokens_alone() {
        let now = Instant::now();
        let mut answers = Answers::default();
        answers.keep(digest(0), &Ok(bound("node-1")), KEEP_CONFIRMED, now);
        for number in 1..=MOST_REFUSED + 10 {
            answers.keep(digest(number), &Err(Refusal::NoPod), Duration::ZERO, now);
        }
        assert_eq!(answers.of(&digest(0), now), Some(Ok(bound("node-1"))));
        assert_eq!(answers.of(&digest(10), now), None);
        assert!(answers.of(&digest(11), now).is_some());
        assert_eq!(answers.refused.by_token.len(), MOST_REFUSED);
        assert_eq!(answers.refused.in_order.len(), MOST_REFUSED);
    }
}
