//! Which network configuration the plugin belongs into, and what to write. Pure: texts from texts.
//!
//! A runtime takes the first configuration by name (`.conflist`, `.conf`, `.json`) and leaves the rest.
//! A list is extended where it stands. A configuration of one plugin (`.conf`, `.json`) cannot be: a
//! list of it and of ours is put before it under a name of ours, and it stays as it is.

use std::collections::BTreeMap;

use serde_json::Value;

use super::list_text::{ListText, Unusable, is_list_of, list_of};

/// The ending of lists that are ours as a whole.
const OWN_ENDING: &str = ".ambit.conflist";

/// A change to one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The file of this name gets this text.
    Write(String, String),
    /// The file of this name goes.
    Remove(String),
}

/// Where the plugin is once these changes are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chained {
    /// The file that names it.
    pub file: String,
    /// In this order.
    pub changes: Vec<Change>,
}

/// What becomes of a part of ours that is there and says something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Present {
    /// It is replaced: settings have changed.
    Renewed,
    /// It stays. During an upgrade it may be another agent's, which is newer.
    Left,
}

/// What is missing for the plugin to be chained.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Waiting {
    /// There is no configuration.
    #[error("there is no network configuration so far: the cluster's network plugin has to write one")]
    Empty,
    /// There is none of the name that was asked for.
    #[error("there is no network configuration {name:?}: check --cni-conf-name")]
    Absent {
        /// The name.
        name: String,
    },
    /// None of those that are there can be extended.
    #[error("no network configuration can be extended: {}", .0.iter().map(|(name, why)| format!("{name}: {why}")).collect::<Vec<_>>().join("; "))]
    Unusable(Vec<(String, Unusable)>),
}

/// Whether a runtime takes a file of this name for a configuration. One that is hidden is one, too.
pub(super) fn is_configuration(name: &str) -> bool {
    [".conflist", ".conf", ".json"].iter().any(|ending| name.ends_with(ending))
}

/// What has to change for the plugin to be in the chain that the runtime uses: nothing, if it is.
pub(super) fn chained(
    files: &BTreeMap<String, String>,
    asked: Option<&str>,
    ours: &Value,
    present: Present,
) -> Result<Chained, Waiting> {
    let of_others = files.iter().filter(|(name, _)| !name.ends_with(OWN_ENDING));
    let candidates: Vec<_> = match asked {
        Some(asked) => of_others.filter(|(name, _)| *name == asked).collect(),
        None => of_others.collect(),
    };
    let mut unusable = Vec::new();
    for (name, text) in &candidates {
        match extended(name, text, files, ours, present) {
            Ok(mut chained) => {
                // A list of ours that is made from something else would come first.
                let stale = files.keys().filter(|file| file.ends_with(OWN_ENDING) && **file != chained.file);
                chained.changes.extend(stale.cloned().map(Change::Remove));
                return Ok(chained);
            }
            Err(why) => unusable.push(((*name).clone(), why)),
        }
    }
    match asked {
        _ if !unusable.is_empty() => Err(Waiting::Unusable(unusable)),
        Some(name) => Err(Waiting::Absent { name: name.to_owned() }),
        None => Err(Waiting::Empty),
    }
}

fn extended(
    name: &str,
    text: &str,
    files: &BTreeMap<String, String>,
    ours: &Value,
    present: Present,
) -> Result<Chained, Unusable> {
    let write = |file: &str, text: String| {
        let changes = if files.get(file) == Some(&text) {
            Vec::new()
        } else {
            vec![Change::Write(file.to_owned(), text)]
        };
        Chained { file: file.to_owned(), changes }
    };
    if name.ends_with(".conflist") {
        let list = ListText::read(text)?;
        return Ok(match (list.ours(), present) {
            (None, _) => write(name, list.with(ours)),
            (Some(part), Present::Renewed) if !says(part, ours) => write(name, list.renewed(ours)),
            (Some(_), Present::Renewed | Present::Left) => write(name, text.to_owned()),
        });
    }
    let own = own_name(name);
    let list = list_of(text, ours)?;
    match (files.get(&own), present) {
        (Some(before), Present::Left) if is_list_of(before, text) => Ok(write(&own, before.clone())),
        (Some(_) | None, _) => Ok(write(&own, list)),
    }
}

/// What has to change for the plugin to be in no chain.
pub(super) fn unchained(files: &BTreeMap<String, String>) -> Vec<Change> {
    let without = |(name, text): (&String, &String)| {
        if name.ends_with(OWN_ENDING) {
            return Some(Change::Remove(name.clone()));
        }
        let list = ListText::read(text).ok()?;
        list.ours()?;
        Some(Change::Write(name.clone(), list.without()))
    };
    files.iter().filter_map(without).collect()
}

/// A name that comes before `name` and after everything that does.
///
/// With the ending cut off it is a beginning of `name`, and goes on with a letter before those of the
/// endings `.conf` and `.json`.
fn own_name(name: &str) -> String {
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    format!("{stem}{OWN_ENDING}")
}

fn says(part: &str, ours: &Value) -> bool {
    serde_json::from_str::<Value>(part).is_ok_and(|part| part == *ours)
}
