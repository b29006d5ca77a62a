//! What is no longer HTTP: a websocket, whichever version of HTTP either side has begun it with.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{self, HeaderValue};
use http::{HeaderMap, StatusCode};

use super::body::{Body, Sink, pass};
use super::respond::{AnswerHead, Responder};
use super::send::{Answer, Inflow, SendError};
use super::{Call, Forwarded, without_hop_fields};
use crate::h1::{BodyReader, BodyWriter, Framing};
use crate::head::BodyLength;

impl Call<'_> {
    /// Tells the client that the protocol has changed.
    pub(super) async fn switch(
        self,
        head: AnswerHead,
        responder: &mut Responder,
    ) -> Result<Answer, SendError> {
        let Some(asked) = &self.request.upgrade else {
            return Err(SendError::BadAnswer("the protocol was changed unasked".to_owned()));
        };
        // An endpoint of HTTP/2 has nothing to choose from, and says nothing.
        let is_other = |protocol: &HeaderValue| !protocol.as_bytes().eq_ignore_ascii_case(asked.as_bytes());
        let is_http1 = head.status == StatusCode::SWITCHING_PROTOCOLS;
        if is_http1 && head.headers.get(header::UPGRADE).is_none_or(is_other) {
            return Err(SendError::BadAnswer("the protocol was changed to another".to_owned()));
        }
        let client = |error: std::io::Error| SendError::Client(error.to_string());
        let mut headers = without_hop_fields(head.headers);
        self.record.answered(head.status, &headers);
        match responder {
            Responder::Http1(http1) => {
                if !is_http1 && let Some(accept) = self.accept() {
                    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
                }
                http1.upgrade(headers, asked).await.map_err(client)?;
                Ok(Answer::Upgraded(Sink::Http1(BodyWriter::new(http1.wire.clone(), Framing::UntilClose))))
            }
            Responder::Http2(_) => {
                // RFC 8441 §5: HTTP/2's own rules take the place of the key.
                headers.remove(header::SEC_WEBSOCKET_ACCEPT);
                let answer = AnswerHead { status: StatusCode::OK, headers, length: BodyLength::Chunked };
                let way = responder.head(answer, false).await.map_err(client)?;
                Ok(Answer::Upgraded(way))
            }
        }
    }

    /// What a client of HTTP/1 expects for its key, where the endpoint never saw it.
    fn accept(self) -> Option<HeaderValue> {
        let key = self.request.headers.get(header::SEC_WEBSOCKET_KEY)?;
        HeaderValue::from_str(&accept_of(key.as_bytes())).ok()
    }

    /// Carries both directions until both have ended. Nothing here ends a connection for being silent: who
    /// is gone is found out by the tunnel, and by the keepalive of the protocol itself.
    pub(super) async fn tunnel(
        self,
        inflow: Inflow,
        sink: Sink,
        body: &mut Body,
        mut way: Sink,
        responder: &Responder,
    ) -> Forwarded {
        let mut from_client = match responder {
            Responder::Http1(http1) => {
                Body::Http1(BodyReader::new(http1.wire.clone(), BodyLength::UntilClose))
            }
            Responder::Http2(_) => std::mem::replace(body, Body::Nothing),
        };
        let (mut from_endpoint, mut to_endpoint, _stream) = match inflow {
            Inflow::Http1 { wire, .. } => {
                let to = Sink::Http1(BodyWriter::new(wire.clone(), Framing::UntilClose));
                (Body::Http1(BodyReader::new(wire, BodyLength::UntilClose)), to, None)
            }
            Inflow::Http2 { body, stream, .. } => (body.unwrap_or(Body::Nothing), sink, Some(stream)),
        };
        let (sent, received) = (self.record.request(), self.record.response());
        let ignore = |_: &mut HeaderMap| ();
        let both = tokio::try_join!(
            pass(&mut from_client, &mut to_endpoint, sent, &ignore),
            pass(&mut from_endpoint, &mut way, received, &ignore),
        );
        match both {
            Ok(_) => Forwarded::Done { is_whole: false },
            Err(broken) => {
                self.record.cut("-", &format!("the changed protocol ended early: {broken}"));
                Forwarded::Cut
            }
        }
    }
}

/// RFC 6455 §4.2.2: the key and a constant, hashed.
fn accept_of(key: &[u8]) -> String {
    let text = [key, WEBSOCKET_GUID].concat();
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &text))
}

/// RFC 6455 §1.3.
const WEBSOCKET_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_answered_as_the_rfc_has_it() {
        // The example of RFC 6455 §1.3.
        assert_eq!(accept_of(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
