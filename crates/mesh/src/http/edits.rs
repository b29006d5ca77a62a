//! What is changed about a request or a response on its way.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::route::{HeaderEdits, PathMatch, PathRewrite};

/// Changes of headers, in the order in which they are to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edits {
    /// Them.
    pub headers: Vec<HeaderEdit>,
}

/// One change of headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderEdit {
    /// This value alone.
    Set(HeaderName, HeaderValue),
    /// This value beside those that are there.
    Add(HeaderName, HeaderValue),
    /// None.
    Remove(HeaderName),
}

impl Edits {
    /// Does them. An engine with another type of headers does the same by [`Edits::headers`].
    pub fn apply(&self, headers: &mut HeaderMap) {
        for edit in &self.headers {
            match edit {
                HeaderEdit::Set(name, value) => {
                    headers.insert(name, value.clone());
                }
                HeaderEdit::Add(name, value) => {
                    headers.append(name, value.clone());
                }
                HeaderEdit::Remove(name) => {
                    headers.remove(name);
                }
            }
        }
    }

    pub(super) fn of<'a>(edits: impl IntoIterator<Item = &'a HeaderEdits>) -> Self {
        let mut headers = Vec::new();
        for edit in edits {
            headers.extend(edit.set.iter().map(|(name, value)| HeaderEdit::Set(name.clone(), value.clone())));
            headers.extend(edit.add.iter().map(|(name, value)| HeaderEdit::Add(name.clone(), value.clone())));
            headers.extend(edit.remove.iter().map(|name| HeaderEdit::Remove(name.clone())));
        }
        Self { headers }
    }
}

/// The path after a rewrite. `condition` is what the path was matched by.
pub(super) fn rewritten(rewrite: &PathRewrite, condition: Option<&PathMatch>, path: &str) -> String {
    let new = match rewrite {
        PathRewrite::Full(new) => new.to_string(),
        PathRewrite::MatchedPrefix(new) => match condition {
            // By whole segments: "/foo" replaced in "/foo/bar" by "/xyz", "/xyz/" or nothing.
            Some(condition @ PathMatch::Segments(_)) => {
                [new.trim_end_matches('/'), condition.rest(path).unwrap_or_default()].concat()
            }
            Some(condition) => match condition.rest(path) {
                Some(rest) => [new, rest].concat(),
                None => new.to_string(),
            },
            None => new.to_string(),
        },
        PathRewrite::Substituted(substitution) => substitution.apply(path),
    };
    if new.starts_with('/') { new } else { ["/", new.as_str()].concat() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_replaced_by_whole_segments() {
        // The table of HTTPRoute's ReplacePrefixMatch.
        for (path, prefix, new, expected) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
        ] {
            let rewrite = PathRewrite::MatchedPrefix(new.into());
            let condition = PathMatch::Segments(prefix.into());
            assert_eq!(rewritten(&rewrite, Some(&condition), path), expected, "{path} {prefix} {new}");
        }
    }

    #[test]
    fn headers_are_set_added_and_removed_in_this_order() {
        let name = |text: &'static str| HeaderName::from_static(text);
        let value = |text: &'static str| HeaderValue::from_static(text);
        let edits = HeaderEdits {
            set: vec![(name("x-set"), value("new"))],
            add: vec![(name("x-add"), value("more"))],
            remove: vec![name("x-gone")],
        };
        let mut headers = HeaderMap::new();
        for (name, text) in [("x-set", "old"), ("x-set", "older"), ("x-add", "first"), ("x-gone", "1")] {
            headers.append(name, value(text));
        }
        Edits::of([&edits]).apply(&mut headers);
        let all = |name: &str| {
            headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!((all("x-set"), all("x-add"), all("x-gone")), (vec!["new"], vec!["first", "more"], vec![]));
    }
}
