//! Where the objects of a kind are at an API server. Pure.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::objects::KnownKind;

/// Objects per page of a list.
const PAGE: u32 = 500;

/// A kind in one of its versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Resource {
    pub(super) kind: KnownKind,
    pub(super) version: &'static str,
}

impl Resource {
    /// One page of a list of everything.
    pub(super) fn list_path(&self, next: Option<&str>) -> String {
        let next = next.map(|next| format!("&continue={}", encoded(next))).unwrap_or_default();
        format!("{}?limit={PAGE}{next}", self.path())
    }

    /// Everything that happens after a version, for some time.
    pub(super) fn watch_path(&self, after: &str, seconds: u32) -> String {
        let (path, after) = (self.path(), encoded(after));
        format!("{path}?watch=true&allowWatchBookmarks=true&resourceVersion={after}&timeoutSeconds={seconds}")
    }

    fn path(&self) -> String {
        format!("{}/{}", group_path(self.kind.group(), self.version), self.kind.plural())
    }
}

/// What an API server says of one version of a group.
pub(super) fn group_path(group: &str, version: &str) -> String {
    match group {
        "" => format!("/api/{version}"),
        group => format!("/apis/{group}/{version}"),
    }
}

/// The list of one object of a collection: what Roles name with `resourceNames` may be listed and watched
/// like this. More parameters may follow.
pub(super) fn one_named(collection: &str, name: &str) -> String {
    format!("{collection}?fieldSelector=metadata.name%3D{}", encoded(name))
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_an_api_server() {
        let pods = Resource { kind: KnownKind::Pod, version: "v1" };
        assert_eq!(pods.list_path(None), "/api/v1/pods?limit=500");
        assert_eq!(pods.list_path(Some("a/b=")), "/api/v1/pods?limit=500&continue=a%2Fb%3D");
        assert_eq!(
            one_named("/api/v1/namespaces", "ambit-system"),
            "/api/v1/namespaces?fieldSelector=metadata.name%3Dambit%2Dsystem"
        );
        let peers = Resource { kind: KnownKind::PeerAuthentication, version: "v1beta1" };
        assert_eq!(
            peers.watch_path("7", 240),
            "/apis/security.istio.io/v1beta1/peerauthentications\
             ?watch=true&allowWatchBookmarks=true&resourceVersion=7&timeoutSeconds=240"
        );
    }
}
