//! Turns one object of an API server into a reading. Pure.
//!
//! Only what control understands of it is kept; the text, of which managed fields alone are often
//! the most, is dropped at once.

use std::sync::Arc;

use serde::Deserialize;

use crate::objects::key::InvalidKey;
use crate::objects::values::null_is_default;
use crate::objects::{Body, KnownKind, Object, ObjectKey};
use crate::source::reading::hash;
use crate::source::{Content, Origin, Reading, Rejection};

/// An object, and the version of the cluster in which it became so.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) reading: Arc<Reading>,
    pub(super) resource_version: String,
}

/// It cannot even be said which object it is.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unidentified {
    #[error("not an object with metadata: {0}")]
    Head(#[from] serde_json::Error),
    #[error(transparent)]
    Key(#[from] InvalidKey),
}

#[derive(Debug, Deserialize)]
struct Head {
    metadata: HeadMeta,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct HeadMeta {
    #[serde(deserialize_with = "null_is_default")]
    name: String,
    namespace: Option<String>,
    #[serde(deserialize_with = "null_is_default")]
    uid: String,
    #[serde(deserialize_with = "null_is_default")]
    resource_version: String,
}

/// Reads an object.
pub(super) fn read(kind: KnownKind, json: &str) -> Result<Found, Unidentified> {
    let Head { metadata } = serde_json::from_str(json)?;
    let key = ObjectKey::of(kind, metadata.namespace.as_deref(), &metadata.name)?;
    let origin = Origin { file: key.to_string().into(), line: 0 };
    let content = match Object::read(kind, Body::Json(json)) {
        Ok(object) => Content::Object(Box::new(object)),
        Err(error) => {
            let closed = Object::closed(kind, Some(Body::Json(json))).map(Box::new);
            Content::Rejected {
                rejection: Rejection { origin: origin.clone(), message: error.message },
                closed,
            }
        }
    };
    let HeadMeta { uid, resource_version, .. } = metadata;
    let content_hash = hash(&format!("{uid} {resource_version}"));
    let reading = Reading { key, origin, text: text(kind, json), content_hash, content };
    Ok(Found { reading: Arc::new(reading), resource_version })
}

/// Which object it is, of one that is gone.
pub(super) fn key(kind: KnownKind, json: &str) -> Result<(ObjectKey, String), Unidentified> {
    let Head { metadata } = serde_json::from_str(json)?;
    let key = ObjectKey::of(kind, metadata.namespace.as_deref(), &metadata.name)?;
    Ok((key, metadata.resource_version))
}

/// Of a policy its last good version may be wanted back after a restart. Of everything else an API
/// server has seen to the form.
fn text(kind: KnownKind, json: &str) -> Option<Arc<str>> {
    match kind {
        KnownKind::AuthorizationPolicy
        | KnownKind::PeerAuthentication
        | KnownKind::HttpRoute
        | KnownKind::GrpcRoute
        | KnownKind::TcpRoute
        | KnownKind::TlsRoute
        | KnownKind::VirtualService
        | KnownKind::DestinationRule => Some(compact(json).into()),
        KnownKind::Namespace
        | KnownKind::Node
        | KnownKind::Pod
        | KnownKind::Service
        | KnownKind::EndpointSlice
        | KnownKind::ServiceAccount
        | KnownKind::ServiceCidr
        | KnownKind::Gateway
        | KnownKind::ServiceEntry => None,
    }
}

/// Without what the API server notes for itself.
fn compact(json: &str) -> String {
    let Ok(mut value) = serde_json::from_str::<serde_json::Value>(json) else { return json.to_owned() };
    if let Some(object) = value.as_object_mut() {
        object.remove("status");
        if let Some(metadata) = object.get_mut("metadata").and_then(serde_json::Value::as_object_mut) {
            metadata.remove("managedFields");
        }
    }
    value.to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read_value(kind: KnownKind, value: &serde_json::Value) -> Reading {
        Arc::unwrap_or_clone(read(kind, &value.to_string()).unwrap().reading)
    }

    #[test]
    fn a_broken_object_is_rejected_by_itself_and_closed_where_that_is_safer() {
        let metadata = json!({"name": "x", "namespace": "shop", "resourceVersion": "5"});
        let rows = [
            (KnownKind::AuthorizationPolicy, json!({"action": "SHRUG"}), "AuthorizationPolicy shop/x", true),
            (
                KnownKind::PeerAuthentication,
                json!({"mtls": {"mode": "SHRUG"}}),
                "PeerAuthentication shop/x",
                true,
            ),
            (KnownKind::Pod, json!({"containers": 7}), "Pod shop/x", false),
            (KnownKind::Node, json!("spec"), "Node x", false),
        ];
        for (kind, spec, expected, has_closed) in rows {
            let reading = read_value(kind, &json!({"metadata": metadata, "spec": spec}));
            assert_eq!(reading.origin.to_string(), expected);
            let Content::Rejected { rejection, closed } = reading.content else {
                panic!("{expected} was accepted")
            };
            assert_eq!(rejection.origin.to_string(), expected);
            assert!(!rejection.message.contains(" line "), "{}", rejection.message);
            assert_eq!(closed.is_some(), has_closed, "{expected}");
        }
        assert!(read(KnownKind::Pod, "17").is_err());
        assert!(read(KnownKind::Pod, r#"{"metadata":{}}"#).is_err());
    }

    #[test]
    fn nothing_is_kept_of_what_is_not_understood() {
        let pod = |noise: &str| {
            json!({
                "metadata": {
                    "name": "web", "namespace": "shop", "uid": "u", "resourceVersion": noise,
                    "annotations": {"kubectl.kubernetes.io/last-applied-configuration": noise},
                    "managedFields": [{"manager": noise}],
                },
                "spec": {
                    "nodeName": "n", "volumes": [{"name": noise}],
                    "containers": [{"name": "c", "image": noise, "env": [{"name": "A", "value": noise}]}],
                },
                "status": {
                    "podIP": "10.1.0.1",
                    "conditions": [{"type": "Ready", "status": "True"}, {"type": noise, "status": "True"}],
                    "containerStatuses": [{"imageID": noise}],
                },
            })
        };
        let (one, other) = (read_value(KnownKind::Pod, &pod("a")), read_value(KnownKind::Pod, &pod("b")));
        assert!(matches!(one.content, Content::Object(_)), "{:?}", one.content);
        assert_eq!(one.content, other.content);
        assert_eq!(one.text, None);

        let policy =
            json!({"metadata": {"name": "x", "namespace": "shop", "managedFields": [1]}, "status": 1});
        let text = read_value(KnownKind::AuthorizationPolicy, &policy).text.unwrap();
        assert_eq!(&*text, r#"{"metadata":{"name":"x","namespace":"shop"}}"#);
    }
}
