//! What the answers of an API server amount to: pure.

use std::time::{Duration, Instant};

use serde::Deserialize;

/// The API group of the mesh. While its resource definitions exist, the mesh is installed.
const GROUP: &str = "ambit.dev";

/// A group that every working API server has.
const ALWAYS: &str = "apps";

/// The least time between two answers that together are believed.
pub const APART: Duration = Duration::from_secs(1);

/// What one answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The mesh's API group is served.
    Installed,
    /// A working API server does not serve it.
    Gone,
    /// The answer says neither, or there was none: why.
    Unknown(String),
}

/// What all answers so far amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The mesh is there, or nobody knows.
    StayClosed,
    /// The mesh was uninstalled.
    Uninstalled,
}

/// The answers so far.
#[derive(Debug, Default)]
pub struct Inquiry {
    /// When the first of an unbroken row of answers came that do not have the group.
    gone_since: Option<Instant>,
}

impl Inquiry {
    /// Takes in an answer that came `at` this time.
    pub fn note(&mut self, finding: &Finding, at: Instant) -> Verdict {
        match finding {
            Finding::Installed | Finding::Unknown(_) => {
                self.gone_since = None;
                Verdict::StayClosed
            }
            Finding::Gone => {
                let since = *self.gone_since.get_or_insert(at);
                let apart = at.saturating_duration_since(since);
                if apart >= APART { Verdict::Uninstalled } else { Verdict::StayClosed }
            }
        }
    }
}

/// Reads the answer to `GET /apis`: the list of all groups, which says more than a 404 to a question for
/// one group. An aggregator that is out of order, a proxy in between or an API server that has not read
/// its own definitions so far does not list `apps` either.
pub fn finding(status: u16, body: &[u8]) -> Finding {
    if status != 200 {
        return Finding::Unknown(format!("status {status}"));
    }
    let list: GroupList = match serde_json::from_slice(body) {
        Ok(list) => list,
        Err(error) => return Finding::Unknown(format!("no list of API groups: {error}")),
    };
    let has = |name: &str| list.groups.iter().any(|group| group.name == name);
    match (list.kind.as_str(), has(GROUP), has(ALWAYS)) {
        ("APIGroupList", true, _) => Finding::Installed,
        ("APIGroupList", false, true) => Finding::Gone,
        ("APIGroupList", false, false) => Finding::Unknown(format!("not even {ALWAYS} is listed")),
        (kind, ..) => Finding::Unknown(format!("a {kind:?} in place of the list of API groups")),
    }
}

/// `APIGroupList` of `meta.k8s.io/v1`.
#[derive(Deserialize)]
struct GroupList {
    #[serde(default)]
    kind: String,
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    name: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(names: &[&str]) -> String {
        let names: Vec<String> = names.iter().map(|name| format!(r#"{{"name":"{name}"}}"#)).collect();
        format!(r#"{{"kind":"APIGroupList","apiVersion":"v1","groups":[{}]}}"#, names.join(","))
    }

    #[test]
    fn only_a_working_api_server_without_the_group_says_that_it_is_gone() {
        let unknown = Finding::Unknown(String::new());
        for (rule, status, body, expected) in [
            ("listed", 200, groups(&["apps", "ambit.dev"]), &Finding::Installed),
            ("not listed", 200, groups(&["apps", "networking.k8s.io"]), &Finding::Gone),
            ("another name that contains it", 200, groups(&["apps", "x.ambit.dev"]), &Finding::Gone),
            ("an API server that has read nothing", 200, groups(&[]), &unknown),
            ("nothing else is listed", 200, groups(&["ambit.dev"]), &Finding::Installed),
            ("no such path", 404, groups(&["apps"]), &unknown),
            ("no right", 403, groups(&["apps"]), &unknown),
            ("no token", 401, groups(&["apps"]), &unknown),
            ("overloaded", 503, groups(&["apps"]), &unknown),
            ("a page of somebody else's", 200, "<html>".to_owned(), &unknown),
            ("another object", 200, r#"{"kind":"Status","groups":[{"name":"apps"}]}"#.to_owned(), &unknown),
            ("an object without groups", 200, r#"{"kind":"APIGroupList"}"#.to_owned(), &unknown),
            ("cut off", 200, groups(&["apps"])[..40].to_owned(), &unknown),
        ] {
            let found = finding(status, body.as_bytes());
            let same = match (&found, expected) {
                (Finding::Unknown(reason), Finding::Unknown(_)) => !reason.is_empty(),
                (found, expected) => found == expected,
            };
            assert!(same, "{rule}: {found:?}");
        }
    }

    #[test]
    fn two_answers_apart_are_believed_and_nothing_less() {
        let start = Instant::now();
        let (gone, here) = (Finding::Gone, Finding::Installed);
        let lost = Finding::Unknown("no route".to_owned());
        for (rule, answers, expected) in [
            ("nobody answered", vec![(0, &lost), (1000, &lost)], false),
            ("one answer", vec![(0, &gone)], false),
            ("two, too close", vec![(0, &gone), (999, &gone)], false),
            ("two, apart", vec![(0, &gone), (1000, &gone)], true),
            ("three, the outer ones apart", vec![(0, &gone), (600, &gone), (1200, &gone)], true),
            ("it came back in between", vec![(0, &gone), (1000, &here), (2000, &gone)], false),
            ("an error in between", vec![(0, &gone), (1000, &lost), (2000, &gone)], false),
            ("gone in the end", vec![(0, &here), (1000, &lost), (2000, &gone), (3000, &gone)], true),
            ("an upgrade: it is there all along", vec![(0, &here), (1000, &here), (2000, &here)], false),
        ] {
            let mut inquiry = Inquiry::default();
            let mut last = Verdict::StayClosed;
            for (at, finding) in answers {
                last = inquiry.note(finding, start + Duration::from_millis(at));
            }
            assert_eq!(last == Verdict::Uninstalled, expected, "{rule}");
        }
    }
}
