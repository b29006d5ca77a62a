//! Edits the text of a network configuration: our plugin goes in or out, and everything else stays as
//! it was written, to the octet. Pure.
//!
//! CNI specification, "Network configuration": a list has a name, a version and `plugins`, which are
//! called in their order.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::cni::PROGRAM;
use crate::cni::network::VERSIONS;

/// A list of plugins, as it is written.
#[derive(Debug)]
pub(super) struct ListText<'a> {
    text: &'a str,
    /// Each plugin's place in the text.
    plugins: Vec<&'a RawValue>,
}

/// Why a configuration is not one that can be extended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// It is not JSON, or not a configuration.
    #[error("it is not a network configuration: {0}")]
    Unreadable(String),
    /// It has no name, or no plugin.
    #[error("it has no {0}")]
    Without(&'static str),
    /// It is of a version without chains, or of one that is not known.
    #[error("its cniVersion is {version:?}, and the plugin can be chained at {}", VERSIONS.join(", "))]
    Version {
        /// The version.
        version: String,
    },
}

/// What a plugin or a configuration says of itself.
#[derive(Debug, Deserialize)]
struct Head {
    #[serde(default)]
    name: Option<String>,
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default, rename = "cniVersion")]
    version: Option<String>,
}

impl<'a> ListText<'a> {
    /// Reads a list.
    pub(super) fn read(text: &'a str) -> Result<Self, Unusable> {
        usable(text)?;
        // Of a key that comes twice the last one counts, as for a runtime that is written in Go.
        let fields: BTreeMap<Cow<'a, str>, &'a RawValue> = serde_json::from_str(text).map_err(unreadable)?;
        let plugins = fields.get("plugins").ok_or(Unusable::Without("plugins"))?;
        let plugins: Vec<&'a RawValue> = serde_json::from_str(plugins.get()).map_err(unreadable)?;
        if plugins.iter().all(|plugin| is_ours(plugin)) {
            return Err(Unusable::Without("plugin that makes a network"));
        }
        Ok(Self { text, plugins })
    }

    /// Our plugin's part, if it is there.
    pub(super) fn ours(&self) -> Option<&'a str> {
        self.plugins.iter().find(|plugin| is_ours(plugin)).map(|plugin| plugin.get())
    }

    /// The text with our plugin at the end of the chain.
    pub(super) fn with(&self, ours: &Value) -> String {
        let Some(last) = self.plugins.last() else { return self.text.to_owned() };
        let end = self.offset(last) + last.get().len();
        let (before, after) = self.text.split_at(end);
        format!("{before},{}{after}", laid_out(ours, self.indentation(last)))
    }

    /// The text with our plugin's part replaced.
    pub(super) fn renewed(&self, ours: &Value) -> String {
        let Some(old) = self.plugins.iter().find(|plugin| is_ours(plugin)) else { return self.with(ours) };
        let start = self.offset(old);
        let (before, after) = (&self.text[..start], &self.text[start + old.get().len()..]);
        format!("{before}{}{after}", laid_out(ours, self.indentation(old)).trim_start())
    }

    /// The text without our plugin.
    pub(super) fn without(&self) -> String {
        let mut text = self.text.to_owned();
        // From behind, so that the places before stay where they are.
        for (index, plugin) in self.plugins.iter().enumerate().rev() {
            if !is_ours(plugin) {
                continue;
            }
            let start = self.offset(plugin);
            let end = start + plugin.get().len();
            let neighbours =
                (index.checked_sub(1).map(|before| self.plugins[before]), self.plugins.get(index + 1));
            match neighbours {
                // The comma before goes with it.
                (Some(before), _) => {
                    text.replace_range(self.offset(before) + before.get().len()..end, "");
                }
                (None, Some(after)) => text.replace_range(start..self.offset(after), ""),
                (None, None) => text.replace_range(start..end, ""),
            }
        }
        text
    }

    /// Where a part of the text begins. Parts are read without copying, so that they are inside of it.
    fn offset(&self, part: &RawValue) -> usize {
        part.get().as_ptr() as usize - self.text.as_ptr() as usize
    }

    /// What stands between the beginning of a line and this part of it; nothing if the part is not the
    /// first of its line.
    fn indentation(&self, part: &RawValue) -> Option<&'a str> {
        let before = &self.text[..self.offset(part)];
        let line = before.rfind('\n').map(|newline| &before[newline + 1..])?;
        line.chars().all(char::is_whitespace).then_some(line)
    }
}

/// A list of the one plugin that `text` configures, and of ours after it.
pub(super) fn list_of(text: &str, ours: &Value) -> Result<String, Unusable> {
    let head = usable(text)?;
    if head.kind.as_deref().unwrap_or_default().is_empty() {
        return Err(Unusable::Without("type"));
    }
    let name = Value::from(head.name.unwrap_or_default());
    let version = Value::from(head.version.unwrap_or_default());
    let indented = text.trim().replace('\n', "\n    ");
    Ok(format!(
        "{{\n  \"cniVersion\": {version},\n  \"name\": {name},\n  \"plugins\": [\n    {indented},{}\n  ]\n}}\n",
        laid_out(ours, Some("    ")),
    ))
}

/// Whether a list that was made by [`list_of`] is still that of this configuration, whatever our
/// plugin's part of it says.
pub(super) fn is_list_of(list: &str, text: &str) -> bool {
    let made = ListText::read(list);
    let Ok(made) = made else { return false };
    let same = |first: &RawValue| {
        let [first, own] = [first.get(), text].map(serde_json::from_str::<Value>);
        first.is_ok_and(|first| own.is_ok_and(|own| first == own))
    };
    made.ours().is_some() && made.plugins.first().is_some_and(|first| same(first))
}

/// A configuration that could be extended, by what it says of itself.
fn usable(text: &str) -> Result<Head, Unusable> {
    let head: Head = serde_json::from_str(text).map_err(unreadable)?;
    if head.name.as_deref().unwrap_or_default().is_empty() {
        return Err(Unusable::Without("name"));
    }
    let version = head.version.clone().unwrap_or_default();
    if !VERSIONS.contains(&&*version) {
        return Err(Unusable::Version { version });
    }
    Ok(head)
}

fn is_ours(plugin: &RawValue) -> bool {
    serde_json::from_str::<Head>(plugin.get()).is_ok_and(|head| head.kind.as_deref() == Some(PROGRAM))
}

/// Our plugin's part on lines of its own with this indentation, or on the line of the part before.
fn laid_out(ours: &Value, indentation: Option<&str>) -> String {
    match indentation {
        Some(indentation) => {
            let text = format!("{ours:#}");
            let lines: Vec<String> = text.lines().map(|line| format!("{indentation}{line}")).collect();
            format!("\n{}", lines.join("\n"))
        }
        None => format!(" {ours}"),
    }
}

fn unreadable(error: serde_json::Error) -> Unusable {
    Unusable::Unreadable(error.to_string())
}
