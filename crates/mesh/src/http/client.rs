//! Who asks, and what.

use std::net::IpAddr;

use http::{HeaderMap, Method};

use crate::policy::Peer;

/// Who sends a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// The identity that the tunnel's certificate proved.
    pub peer: Peer,
    /// The client's address.
    pub ip: IpAddr,
}

/// The head of a request as it was received, after the strict check of its framing.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The method.
    pub method: &'a Method,
    /// `:authority` or `Host`, as it was sent; empty if there is none (HTTP/1.0).
    pub authority: &'a str,
    /// Path and query as they were sent (`/a/b?c=d`), or `*`.
    pub target: &'a str,
    /// The headers. `Host` is ignored: `authority` counts.
    pub headers: &'a HeaderMap,
}
