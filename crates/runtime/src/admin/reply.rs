//! What a handler answers.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;

/// The answer to a request.
#[derive(Debug)]
pub struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Cow<'static, str>,
}

impl Reply {
    /// 200 with plain text.
    pub fn text(body: impl Into<Cow<'static, str>>) -> Self {
        Self::new("text/plain; charset=utf-8", body.into())
    }

    /// 200 with JSON, or 500 with what could not be serialized.
    pub fn json(value: &impl Serialize) -> Self {
        match serde_json::to_string_pretty(value) {
            Ok(body) => Self::new("application/json", (body + "\n").into()),
            Err(error) => Self::text(format!("cannot be printed: {error}\n"))
                .with_status(StatusCode::INTERNAL_SERVER_ERROR),
        }
    }

    /// 200 with a body of this type.
    pub fn new(content_type: &'static str, body: Cow<'static, str>) -> Self {
        let headers = HeaderMap::from_iter([
            (CONTENT_TYPE, HeaderValue::from_static(content_type)),
            // Every answer describes this moment.
            (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        ]);
        Self { status: StatusCode::OK, headers, body }
    }

    /// The same with another status.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// The same, saying which method would have been right (RFC 9110 §15.5.6).
    #[must_use]
    pub(super) fn allowing(mut self, method: &Method) -> Self {
        let allowed = if method == Method::GET { "GET, HEAD" } else { "POST" };
        self.headers.insert(ALLOW, HeaderValue::from_static(allowed));
        self
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The body.
    pub fn body(&self) -> &str {
        &self.body
    }

    pub(super) fn into_response(self) -> Response<Full<Bytes>> {
        let body = match self.body {
            Cow::Borrowed(text) => Bytes::from_static(text.as_bytes()),
            Cow::Owned(text) => Bytes::from(text),
        };
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}
