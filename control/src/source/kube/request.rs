//! One GET to an API server, and what can go wrong with it.

use std::error::Error;
use std::future::Future;
use std::iter::successors;
use std::time::Duration;

use http::header::{ACCEPT, RETRY_AFTER};
use http::{Request, Response};
use http_body_util::{BodyExt, Limited};
use kube::Client;
use kube::client::Body;
use tokio::time::timeout;

use super::wire::Status;

/// Until the head of a response is there. An API server that has too much to do lets a request wait
/// for a quarter of a minute.
const HEAD_DEADLINE: Duration = Duration::from_secs(30);

/// Until a whole response is there.
const BODY_DEADLINE: Duration = Duration::from_secs(60);

/// A page of 500 of the largest objects that etcd takes would be longer; pods are some 10 kB each.
const LONGEST_BODY: usize = 256 * 1024 * 1024;

/// What is read of the text of an error.
const LONGEST_ERROR: usize = 64 * 1024;

/// Why an API server did not answer as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// There is no answer, or not all of it.
    #[error("no answer: {why}")]
    Unreachable {
        /// What the connection said.
        why: String,
    },
    /// It answered with an error.
    #[error("{status}: {message}")]
    Refused {
        /// As in HTTP.
        status: u16,
        /// What it said.
        message: String,
        /// How long it asked to be left alone.
        retry_after: Option<Duration>,
    },
    /// It answered with something else than what an API server answers.
    #[error("{what} cannot be read")]
    Garbled {
        /// What was asked for.
        what: &'static str,
    },
    /// A watch ended as soon as it began.
    #[error("the watch ended at once")]
    Ended,
}

impl Failure {
    pub(super) fn unreachable(error: &(dyn Error + 'static)) -> Self {
        let causes = successors(Some(error), |&error| error.source());
        Self::Unreachable { why: causes.map(ToString::to_string).collect::<Vec<_>>().join(": ") }
    }

    pub(super) fn garbled(what: &'static str) -> Self {
        Self::Garbled { what }
    }

    /// How long to leave the API server alone, if it said so.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            Self::Unreachable { .. } | Self::Garbled { .. } | Self::Ended => None,
        }
    }

    /// The HTTP status of a refusal.
    pub(super) fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            Self::Unreachable { .. } | Self::Garbled { .. } | Self::Ended => None,
        }
    }

    /// For metrics.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "unreachable",
            Self::Refused { status: 410, .. } => "expired",
            Self::Refused { status: 429, .. } => "throttled",
            Self::Refused { .. } => "refused",
            Self::Garbled { .. } => "garbled",
            Self::Ended => "ended",
        }
    }
}

impl From<Status> for Failure {
    fn from(Status { code, message }: Status) -> Self {
        Self::Refused { status: code, message, retry_after: None }
    }
}

/// Asks for something that is answered whole.
pub(super) async fn text(client: &Client, path: &str, what: &'static str) -> Result<String, Failure> {
    let body = within(BODY_DEADLINE, async { read(head(client, path).await?, LONGEST_BODY).await }).await?;
    String::from_utf8(body).map_err(|_| Failure::garbled(what))
}

/// Asks for something of which only the head is waited for.
pub(super) async fn head(client: &Client, path: &str) -> Result<Body, Failure> {
    let request = Request::get(path).header(ACCEPT, "application/json").body(Body::empty());
    let request = request.map_err(|error| Failure::unreachable(&error))?;
    let answer = async { client.send(request).await.map_err(|error| Failure::unreachable(&error)) };
    let response = within(HEAD_DEADLINE, answer).await?;
    if response.status().is_success() {
        return Ok(response.into_body());
    }
    Err(within(HEAD_DEADLINE, async { Ok(refusal(response).await) }).await?)
}

async fn refusal(response: Response<Body>) -> Failure {
    let status = response.status().as_u16();
    let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let text = read(response.into_body(), LONGEST_ERROR).await.unwrap_or_default();
    // Proxies and an overloaded API server answer in plain text.
    let message = match serde_json::from_slice::<Status>(&text) {
        Ok(status) if !status.message.is_empty() => status.message,
        Ok(_) | Err(_) => String::from_utf8_lossy(&text).trim().to_owned(),
    };
    Failure::Refused { status, message, retry_after: seconds.map(Duration::from_secs) }
}

async fn read(body: Body, longest: usize) -> Result<Vec<u8>, Failure> {
    let whole = Limited::new(body, longest).collect().await;
    whole.map(|whole| whole.to_bytes().into()).map_err(|error| Failure::unreachable(&*error))
}

async fn within<T>(deadline: Duration, step: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let late = || Failure::Unreachable { why: format!("it took longer than {deadline:?}") };
    timeout(deadline, step).await.unwrap_or_else(|_| Err(late()))
}
