//! Who calls, on Kubernetes: the API server reviews the token, and the token's pod has to be there.
//!
//! It owns how often the API server is asked: once for each token at a time, a confirmed one again
//! after a minute, few at a time and so many in a second whatever comes. What an answer means is
//! decided in [`decide`].

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::ca::grant::Caller;
use crate::limits::buckets::{Buckets, Rate};
use crate::limits::turns::Turns;
use crate::publish::Generation;
use answers::{Answers, TokenDigest};
use decide::{Bound, Refusal, Rules};
use shown::Shown;

mod answers;
pub mod decide;
mod shown;

/// Reviews under way at a time.
const REVIEWS_AT_A_TIME: usize = 8;

/// Reviews of one address's tokens that wait.
const WAITING_PER_ADDRESS: usize = 16;

/// Tokens that are asked about at this moment.
const MOST_ASKED: usize = 1_000;

/// For all tokens together. 1,000 nodes ask 17 times a second at most.
const REVIEWS: Rate = Rate { burst: 200, every: Duration::from_millis(10) };

/// For one review, with the wait for its turn.
const DEADLINE: Duration = Duration::from_secs(8);

/// Recognises the tokens of node agents and of waypoints. Dropping it ends what is being asked.
pub struct TokenReviews {
    asker: Arc<Asker>,
    generation: watch::Receiver<Arc<Generation>>,
    tasks: Mutex<JoinSet<()>>,
}

struct Asker {
    reviews: Api<TokenReview>,
    rules: Rules,
    turns: Turns<Option<IpAddr>>,
    rate: Mutex<Buckets<()>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    answers: Answers,
    asked: HashMap<TokenDigest, watch::Receiver<Option<Outcome>>>,
}

type Outcome = Result<Result<Bound, Refusal>, CannotTell>;

/// Why it is not known whose token it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant is its message")]
pub enum CannotTell {
    #[error("the API server cannot be asked about the token: {said}")]
    Api { said: String },
    #[error("the API server has not answered within {DEADLINE:?}")]
    Deadline,
    #[error("too many other tokens are being asked about: try again")]
    Busy,
}

/// Why a token makes no caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant is its message")]
pub enum NoCaller {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    CannotTell(#[from] CannotTell),
}

impl TokenReviews {
    /// Asks through `client`; whether a token's pod is there is read from the generations.
    pub fn new(client: Client, rules: Rules, generation: watch::Receiver<Arc<Generation>>) -> Self {
        let asker = Asker {
            reviews: Api::all(client),
            rules,
            turns: Turns::new(REVIEWS_AT_A_TIME, WAITING_PER_ADDRESS),
            rate: Mutex::new(Buckets::new(REVIEWS)),
            state: Mutex::default(),
        };
        Self { asker: Arc::new(asker), generation, tasks: Mutex::default() }
    }

    /// The caller, if the API server has answered about this token lately.
    pub fn known(&self, token: &str) -> Option<Result<Caller, Refusal>> {
        let answer = lock(&self.asker.state).answers.of(&digest_of(token), Instant::now())?;
        Some(answer.and_then(|bound| self.caller(&bound)))
    }

    /// The caller whose token this is; the API server is asked if it has to be.
    ///
    /// # Errors
    /// When the token does not count, or that cannot be told now.
    pub async fn ask(&self, token: &str, peer: Option<IpAddr>) -> Result<Caller, NoCaller> {
        let shown = Shown::by(token).map_err(Refusal::from)?;
        let life = until(shown.expires_seconds);
        decide::worth_asking(&shown, &self.asker.rules, &self.generation.borrow().inputs, seconds_now())?;
        let mut coming = self.start(token, life, peer)?;
        let outcome = coming.wait_for(Option::is_some).await.map(|outcome| outcome.clone());
        // A review that has died is none that anybody should wait for again.
        let outcome = outcome.unwrap_or_else(|_| {
            lock(&self.asker.state).asked.remove(&digest_of(token));
            Some(Err(CannotTell::Deadline))
        });
        let bound = outcome.expect("it was waited for")??;
        Ok(self.caller(&bound)?)
    }

    fn caller(&self, bound: &Bound) -> Result<Caller, Refusal> {
        decide::caller(bound, &self.asker.rules, &self.generation.borrow().inputs)
    }

    /// Joins the review of this token, or begins one. It goes on when this caller gives up, for
    /// others may wait for it.
    fn start(
        &self,
        token: &str,
        life: Duration,
        peer: Option<IpAddr>,
    ) -> Result<watch::Receiver<Option<Outcome>>, CannotTell> {
        let key = digest_of(token);
        let mut state = lock(&self.asker.state);
        if let Some(answer) = state.answers.of(&key, Instant::now()) {
            return Ok(watch::channel(Some(Ok(answer))).1);
        }
        if let Some(coming) = state.asked.get(&key) {
            return Ok(coming.clone());
        }
        if state.asked.len() >= MOST_ASKED {
            return Err(CannotTell::Busy);
        }
        let (tell, coming) = watch::channel(None);
        state.asked.insert(key, coming.clone());
        let (asker, token) = (self.asker.clone(), token.to_owned());
        let mut tasks = lock(&self.tasks);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            let outcome = timeout(DEADLINE, asker.ask(&token, peer)).await;
            let outcome = outcome.unwrap_or(Err(CannotTell::Deadline));
            asker.finish(key, &outcome, life);
            tell.send_replace(Some(outcome));
        });
        Ok(coming)
    }
}

impl Asker {
    async fn ask(&self, token: &str, peer: Option<IpAddr>) -> Outcome {
        let _turn = self.turns.next(&peer).await.map_err(|_| CannotTell::Busy)?;
        if !lock(&self.rate).admit(&(), Instant::now()) {
            return Err(CannotTell::Busy);
        }
        Ok(decide::confirmed(&self.review(token).await?, &self.rules))
    }

    async fn review(&self, token: &str) -> Result<TokenReviewStatus, CannotTell> {
        let audiences = Some(self.rules.audiences.clone());
        let spec = TokenReviewSpec { audiences, token: token.to_owned() };
        let review = TokenReview { spec, ..TokenReview::default() };
        let reviewed = self.reviews.create(&PostParams::default(), &review).await;
        let reviewed = reviewed.map_err(|error| CannotTell::Api { said: error.to_string() })?;
        Ok(reviewed.status.unwrap_or_default())
    }

    fn finish(&self, key: TokenDigest, outcome: &Outcome, life: Duration) {
        let mut state = lock(&self.state);
        state.asked.remove(&key);
        if let Ok(answer) = outcome {
            state.answers.keep(key, answer, life, Instant::now());
        }
    }
}

impl fmt::Debug for TokenReviews {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenReviews").field("rules", &self.asker.rules).finish_non_exhaustive()
    }
}

fn digest_of(token: &str) -> TokenDigest {
    let mut octets = TokenDigest::default();
    octets.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    octets
}

fn until(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds.saturating_sub(seconds_now())).unwrap_or(0))
}

fn seconds_now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

/// A panic elsewhere leaves whole values behind: every step ends before the next begins.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
