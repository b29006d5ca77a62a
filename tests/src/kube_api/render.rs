//! How objects are written into answers: in the version and form that were asked for.

use bytes::Bytes;
use serde_json::{Value, json};

use super::kinds::Resource;
use super::objects::fields;
use super::store::{Stored, at_revision};

/// How an answer shows objects of a kind.
#[derive(Clone, Debug)]
pub(super) struct Form {
    api_version: String,
    kind: String,
    is_custom: bool,
    content: Content,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Whole,
    /// `PartialObjectMetadata`.
    Metadata,
}

impl Form {
    /// The form that the header `Accept` asks for.
    pub(super) fn new(resource: &Resource, accept: &str) -> Self {
        let content = match accept.contains("as=PartialObjectMetadata") {
            true => Content::Metadata,
            false => Content::Whole,
        };
        Self {
            api_version: resource.api_version(),
            kind: resource.kind.clone(),
            is_custom: resource.is_custom(),
            content,
        }
    }

    /// One object by itself.
    pub(super) fn object(&self, stored: &Stored) -> Bytes {
        match self.content {
            Content::Whole if stored.value["apiVersion"] == self.api_version.as_str() => stored.json(),
            Content::Whole | Content::Metadata => self.value(&stored.value).to_string().into(),
        }
    }

    /// One object with the revision of a later change.
    pub(super) fn object_at(&self, stored: &Stored, revision: u64) -> Bytes {
        at_revision(self.value(&stored.value), revision).to_string().into()
    }

    /// An object of which only the revision counts.
    pub(super) fn bookmark(&self, revision: u64) -> Bytes {
        let (api_version, kind) = self.types();
        let metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        json!({"apiVersion": api_version, "kind": kind, "metadata": metadata}).to_string().into()
    }

    /// A list.
    pub(super) fn list<'a>(&self, metadata: &Value, objects: impl Iterator<Item = &'a Stored>) -> Bytes {
        let (api_version, kind) = self.types();
        let mut text = format!(
            "{{\"apiVersion\":{},\"kind\":{},\"metadata\":{metadata},\"items\":[",
            json!(api_version),
            json!(format!("{kind}List"))
        )
        .into_bytes();
        for (index, stored) in objects.enumerate() {
            if index > 0 {
                text.push(b',');
            }
            if self.content == Content::Whole && self.is_custom {
                text.extend_from_slice(&self.object(stored));
                continue;
            }
            let mut value = self.value(&stored.value);
            if self.content == Content::Whole {
                // Lists of built-in kinds name the kind once.
                fields(&mut value).remove("apiVersion");
                fields(&mut value).remove("kind");
            }
            text.extend_from_slice(value.to_string().as_bytes());
        }
        text.extend_from_slice(b"]}");
        text.into()
    }

    fn types(&self) -> (&str, &str) {
        match self.content {
            Content::Whole => (&self.api_version, &self.kind),
            Content::Metadata => ("meta.k8s.io/v1", "PartialObjectMetadata"),
        }
    }

    fn value(&self, value: &Value) -> Value {
        let (api_version, kind) = self.types();
        let mut value = match self.content {
            Content::Whole => value.clone(),
            Content::Metadata => json!({"metadata": value["metadata"]}),
        };
        value["apiVersion"] = api_version.into();
        value["kind"] = kind.into();
        value
    }
}
