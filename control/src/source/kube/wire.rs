//! What an API server sends, taken apart without being understood. Pure.
//!
//! Lists and watches are split into single objects here, so that one that makes no sense costs only
//! itself.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::objects::values::null_is_default;

/// One page of a list.
#[derive(Debug, Deserialize)]
pub(super) struct Page<'a> {
    #[serde(default, deserialize_with = "null_is_default")]
    metadata: ListMeta,
    #[serde(borrow, default, deserialize_with = "null_is_default")]
    items: Vec<&'a RawValue>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ListMeta {
    #[serde(deserialize_with = "null_is_default")]
    resource_version: String,
    #[serde(rename = "continue", deserialize_with = "null_is_default")]
    next: String,
}

impl<'a> Page<'a> {
    /// Reads a page.
    pub(super) fn read(text: &'a str) -> serde_json::Result<Self> {
        serde_json::from_str(text)
    }

    /// The objects.
    pub(super) fn items(&self) -> impl Iterator<Item = &'a str> {
        self.items.iter().map(|item| item.get())
    }

    /// What to ask for the next page with; `None` on the last one.
    pub(super) fn next(&self) -> Option<&str> {
        Some(self.metadata.next.as_str()).filter(|next| !next.is_empty())
    }

    /// The version from which to watch.
    pub(super) fn resource_version(&self) -> &str {
        &self.metadata.resource_version
    }
}

/// One line of a watch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// The object is new or another.
    Put(&'a str),
    /// The object, as it was last, is gone.
    Gone(&'a str),
    /// Nothing happened up to this version.
    Bookmark(String),
    /// The watch cannot go on.
    Failed(Status),
    /// A newer API server tells something that nobody here asked for.
    Unknown,
}

/// Why an API server did not do what it was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    /// As in HTTP.
    #[serde(deserialize_with = "null_is_default")]
    pub(super) code: u16,
    /// For people.
    #[serde(deserialize_with = "null_is_default")]
    pub(super) message: String,
}

impl<'a> Line<'a> {
    /// Reads a line.
    pub(super) fn read(text: &'a str) -> serde_json::Result<Self> {
        #[derive(Deserialize)]
        struct Event<'a> {
            #[serde(rename = "type")]
            kind: String,
            #[serde(borrow)]
            object: &'a RawValue,
        }
        let Event { kind, object } = serde_json::from_str(text)?;
        Ok(match kind.as_str() {
            "ADDED" | "MODIFIED" => Self::Put(object.get()),
            "DELETED" => Self::Gone(object.get()),
            "BOOKMARK" => Self::Bookmark(Page::read(object.get())?.metadata.resource_version),
            "ERROR" => Self::Failed(serde_json::from_str(object.get())?),
            _ => Self::Unknown,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_split_into_its_objects() {
        let text = r#"{"kind":"PodList","metadata":{"resourceVersion":"7","continue":"abc","remainingItemCount":2},
            "items":[{"metadata":{"name":"a"}}, 17, null]}"#;
        let page = Page::read(text).unwrap();
        assert_eq!(page.items().collect::<Vec<_>>(), [r#"{"metadata":{"name":"a"}}"#, "17", "null"]);
        assert_eq!((page.next(), page.resource_version()), (Some("abc"), "7"));

        let last =
            Page::read(r#"{"metadata":{"resourceVersion":"8","continue":null},"items":null}"#).unwrap();
        assert_eq!((last.items().count(), last.next(), last.resource_version()), (0, None, "8"));
        assert!(Page::read("Too many requests").is_err());
    }

    #[test]
    fn lines_are_read_whatever_the_order_of_their_fields() {
        let object = r#"{"metadata":{"resourceVersion":"9"}}"#;
        let rows = [
            ("ADDED", Line::Put(object)),
            ("MODIFIED", Line::Put(object)),
            ("DELETED", Line::Gone(object)),
            ("BOOKMARK", Line::Bookmark("9".to_owned())),
            ("ERROR", Line::Failed(Status::default())),
            ("NOVELTY", Line::Unknown),
        ];
        for (kind, expected) in rows {
            let type_first = format!(r#"{{"type":"{kind}","object":{object}}}"#);
            let object_first = format!(r#"{{"object":{object},"type":"{kind}"}}"#);
            assert_eq!(Line::read(&type_first).unwrap(), expected, "{kind}");
            assert_eq!(Line::read(&object_first).unwrap(), expected, "{kind}");
        }
        let gone = r#"{"type":"ERROR","object":{"kind":"Status","code":410,"message":"too old"}}"#;
        let expected = Status { code: 410, message: "too old".to_owned() };
        assert_eq!(Line::read(gone).unwrap(), Line::Failed(expected));
        assert!(Line::read(r#"{"type":"ADDED","obj"#).is_err());
    }
}
