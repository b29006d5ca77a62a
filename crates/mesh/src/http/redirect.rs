//! Where a redirect points to.

use super::authorize::host_of;
use super::edits::rewritten;
use super::normalize::Path;
use super::route::{PathMatch, Redirect, RedirectPort};

/// What a waypoint is asked over: TLS is the mesh's, and the client's own would not be read here.
const SCHEME: &str = "http";

/// The `Location` of a redirect. `port` is the one that the client dialled.
///
/// Gateway API HTTPRequestRedirectFilter: without a port it is the scheme's own where a scheme is
/// given, and else the listener's; it is left out where it is the scheme's own.
pub(super) fn location(
    redirect: &Redirect,
    authority: &str,
    port: u16,
    path: &Path,
    condition: Option<&PathMatch>,
) -> String {
    let scheme = redirect.scheme.as_deref().unwrap_or(SCHEME);
    let host = redirect.host.as_deref().unwrap_or_else(|| host_of(authority));
    let of_scheme = match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    };
    let port = match (redirect.port, &redirect.scheme) {
        (RedirectPort::Number(port), _) => Some(port),
        (RedirectPort::OfScheme, _) | (RedirectPort::Usual, Some(_)) => of_scheme,
        (RedirectPort::Dialled, _) | (RedirectPort::Usual, None) => Some(port),
    };
    let new_path = redirect.path.as_ref().map(|rewrite| rewritten(rewrite, condition, path.path()));
    let target = path.target(new_path.as_deref().unwrap_or(path.path()));
    match port.filter(|port| Some(*port) != of_scheme) {
        Some(port) => format!("{scheme}://{host}:{port}{target}"),
        None => format!("{scheme}://{host}{target}"),
    }
}
