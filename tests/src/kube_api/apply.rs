//! Server-side apply, and who owns what after any write.
//!
//! A manager applies the fields it has an opinion on. Fields that it applied before and leaves out now go,
//! unless somebody else owns them too; fields that another manager set to another value are a conflict,
//! unless the request forces them.

use serde_json::{Value, json};

use super::errors::ApiError;
use super::kinds::Resource;
use super::objects::{Part, fields, metadata, set};
use super::ownership::{
    ListKind, Path, Paths, Step, describe, from_fields_v1, is_at, list_kind, owned, step_to, strip,
    to_fields_v1, value_at,
};

/// Who writes, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Manager {
    pub(super) name: String,
    pub(super) operation: Operation,
    pub(super) part: Part,
}

/// How a manager writes: what it applied and what it wrote otherwise is owned apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Apply,
    Update,
}

/// What one manager owns.
#[derive(Clone, Debug)]
struct Entry {
    manager: Manager,
    time: Value,
    paths: Paths,
}

/// `old` with `body` applied to it.
pub(super) fn apply(
    resource: &Resource,
    old: &Value,
    body: &Value,
    manager: &Manager,
    force: bool,
) -> Result<Value, ApiError> {
    let applied = strip(resource, body, manager.part);
    let wanted = owned(resource, body, manager.part);
    let mut entries = entries(old);
    let before = entries.iter().position(|entry| entry.manager == *manager);
    let before = before.map(|index| entries.remove(index).paths).unwrap_or_default();

    let differs = |path: &Path| {
        matches!(path.last(), Some(Step::Field(_))) && value_at(old, path) != value_at(&applied, path)
    };
    let mut conflicts = Vec::new();
    for entry in &mut entries {
        let taken: Vec<Path> =
            entry.paths.intersection(&wanted).filter(|path| differs(path)).cloned().collect();
        for path in taken {
            conflicts.push((describe(&path), entry.manager.name.clone()));
            entry.paths.remove(&path);
        }
    }
    if !force && !conflicts.is_empty() {
        return Err(ApiError::owned_by_others(&conflicts));
    }

    let mut object = old.clone();
    merge(resource, &mut object, &applied, &mut Vec::new());
    // An element of a list goes before what tells it from others.
    for path in before.difference(&wanted) {
        if !entries.iter().any(|entry| entry.paths.iter().any(|owned| owned.starts_with(path))) {
            remove(&mut object, path);
        }
    }
    entries.push(Entry { manager: manager.clone(), time: Value::Null, paths: wanted });
    set_entries(&mut object, entries);
    Ok(object)
}

/// Notes that `manager` wrote what differs between `old` and `object`, without applying.
pub(super) fn note_update(resource: &Resource, old: &Value, object: &mut Value, manager: &Manager) {
    let (before, after) = (owned(resource, old, manager.part), owned(resource, object, manager.part));
    let gone: Paths = before.difference(&after).cloned().collect();
    let changed: Paths =
        after.iter().filter(|path| value_at(old, path) != value_at(object, path)).cloned().collect();
    let mut entries = entries(object);
    let mut own = Paths::new();
    entries.retain_mut(|entry| {
        if entry.manager.part == manager.part {
            entry.paths.retain(|path| !gone.contains(path));
        }
        if entry.manager == *manager {
            own.append(&mut entry.paths);
        } else if entry.manager.part == manager.part {
            // An element of a list is owned by everybody who has something in it.
            let is_taken =
                |path: &Path| changed.contains(path) && matches!(path.last(), Some(Step::Field(_)));
            entry.paths.retain(|path| !is_taken(path));
        }
        !entry.paths.is_empty()
    });
    own.extend(changed);
    entries.push(Entry { manager: manager.clone(), time: Value::Null, paths: own });
    set_entries(object, entries);
}

/// Gives the entries that are not as in `old` the time of this write.
pub(super) fn date_entries(old: &Value, object: &mut Value, api_version: &str, now: &str) {
    let before = old["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let Some(entries) = object["metadata"]["managedFields"].as_array_mut() else { return };
    for entry in entries {
        let same = |other: &&Value| {
            ["manager", "operation", "subresource", "fieldsV1"]
                .iter()
                .all(|field| other[field] == entry[field])
        };
        match before.iter().find(same) {
            Some(known) => *entry = known.clone(),
            None => {
                entry["time"] = now.into();
                entry["apiVersion"] = api_version.into();
            }
        }
    }
}

fn merge(resource: &Resource, target: &mut Value, applied: &Value, path: &mut Path) {
    match applied {
        Value::Object(applied) => {
            fields(target);
            for (name, value) in applied {
                path.push(Step::Field(name.clone()));
                merge(resource, fields(target).entry(name.clone()).or_insert(Value::Null), value, path);
                path.pop();
            }
        }
        Value::Array(elements) if list_kind(resource, path) != ListKind::Atomic => {
            let kind = list_kind(resource, path);
            if !target.is_array() {
                *target = json!([]);
            }
            let Some(list) = target.as_array_mut() else { return };
            for element in elements {
                let Some(step) = step_to(&kind, element) else { continue };
                match list.iter_mut().find(|known| is_at(known, &step)) {
                    Some(known) if element.is_object() => {
                        path.push(step);
                        merge(resource, known, element, path);
                        path.pop();
                    }
                    Some(_) => {}
                    None => list.push(element.clone()),
                }
            }
        }
        Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            *target = applied.clone();
        }
    }
}

fn remove(object: &mut Value, path: &[Step]) {
    let Some((last, parents)) = path.split_last() else { return };
    let parent = parents.iter().try_fold(object, |value, step| match step {
        Step::Field(name) => value.get_mut(name),
        Step::Key(_) | Step::Element(_) => {
            value.as_array_mut()?.iter_mut().find(|element| is_at(element, step))
        }
    });
    match (parent, last) {
        (Some(Value::Object(fields)), Step::Field(name)) => drop(fields.remove(name)),
        (Some(Value::Array(list)), step) => list.retain(|element| !is_at(element, step)),
        (Some(_) | None, _) => {}
    }
}

fn entries(object: &Value) -> Vec<Entry> {
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    entries
        .map(|entry| Entry {
            manager: Manager {
                name: entry["manager"].as_str().unwrap_or_default().into(),
                operation: match entry["operation"] == "Apply" {
                    true => Operation::Apply,
                    false => Operation::Update,
                },
                part: if entry["subresource"] == "status" { Part::Status } else { Part::Main },
            },
            time: entry["time"].clone(),
            paths: from_fields_v1(&entry["fieldsV1"]),
        })
        .collect()
}

fn set_entries(object: &mut Value, entries: Vec<Entry>) {
    let written: Vec<Value> = entries
        .into_iter()
        .filter(|entry| !entry.paths.is_empty())
        .map(|Entry { manager, time, paths }| {
            let operation = match manager.operation {
                Operation::Apply => "Apply",
                Operation::Update => "Update",
            };
            let mut entry = json!({
                "manager": manager.name, "operation": operation, "time": time,
                "fieldsType": "FieldsV1", "fieldsV1": to_fields_v1(&paths),
            });
            if manager.part == Part::Status {
                set(&mut entry, "subresource", "status".into());
            }
            entry
        })
        .collect();
    metadata(object).insert("managedFields".into(), written.into());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube_api::kinds::built_in;

    fn services() -> Resource {
        built_in().find(|resource| resource.is("", "services")).unwrap()
    }

    fn manager(name: &str) -> Manager {
        Manager { name: name.into(), operation: Operation::Apply, part: Part::Status }
    }

    fn conditions(conditions: &[(&str, &str)]) -> Value {
        let conditions: Vec<Value> =
            conditions.iter().map(|(kind, status)| json!({"type": kind, "status": status})).collect();
        json!({"status": {"conditions": conditions}})
    }

    #[test]
    fn each_manager_has_its_own_conditions() {
        let services = services();
        let object = json!({"metadata": {"name": "a"}});
        let object = apply(&services, &object, &conditions(&[("A", "True")]), &manager("a"), false).unwrap();
        let object =
            apply(&services, &object, &conditions(&[("B", "True"), ("C", "True")]), &manager("b"), false)
                .unwrap();
        let types = |object: &Value| -> Vec<String> {
            let conditions = object["status"]["conditions"].as_array().unwrap();
            conditions.iter().map(|condition| condition["type"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(types(&object), ["A", "B", "C"]);
        // What b leaves out goes, and a's stays.
        let object = apply(&services, &object, &conditions(&[("B", "True")]), &manager("b"), false).unwrap();
        assert_eq!(types(&object), ["A", "B"]);
        // Another value of a's is a conflict; the same value is owned by both.
        let other = conditions(&[("A", "False")]);
        assert_eq!(apply(&services, &object, &other, &manager("b"), false).unwrap_err().code, 409);
        let shared = apply(&services, &object, &conditions(&[("A", "True")]), &manager("b"), false).unwrap();
        let shared = apply(&services, &shared, &conditions(&[]), &manager("a"), false).unwrap();
        assert_eq!(types(&shared), ["A"]);
        let forced = apply(&services, &object, &other, &manager("b"), true).unwrap();
        assert_eq!(forced["status"]["conditions"][0]["status"], "False");
        assert_eq!(
            apply(&services, &forced, &conditions(&[("A", "True")]), &manager("a"), false).unwrap_err().code,
            409
        );
    }

    #[test]
    fn what_has_no_fields_is_something_all_the_same() {
        let services = services();
        let object = json!({"metadata": {"name": "a"}});
        let object =
            apply(&services, &object, &json!({"status": {"loadBalancer": {}}}), &manager("a"), false);
        assert_eq!(object.unwrap()["status"], json!({"loadBalancer": {}}));
    }

    #[test]
    fn an_update_takes_what_it_changes() {
        let services = services();
        let object = json!({"metadata": {"name": "a"}});
        let old =
            apply(&services, &object, &conditions(&[("A", "True"), ("B", "True")]), &manager("a"), false)
                .unwrap();
        let mut new = old.clone();
        new["status"]["conditions"][0]["status"] = "False".into();
        let update = Manager { operation: Operation::Update, ..manager("u") };
        note_update(&services, &old, &mut new, &update);
        let again = conditions(&[("A", "True"), ("B", "True")]);
        assert_eq!(apply(&services, &new, &again, &manager("a"), false).unwrap_err().code, 409);
        let rest =
            apply(&services, &new, &conditions(&[("A", "False"), ("B", "True")]), &manager("a"), false);
        assert!(rest.is_ok(), "{rest:?}");
    }
}
