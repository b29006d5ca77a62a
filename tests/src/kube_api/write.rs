//! Requests that write: what they have to agree with, and what is stored in the end.

use std::sync::Arc;

use serde_json::{Value, json};

use super::apply::{Manager, Operation, apply, date_entries, note_update};
use super::errors::ApiError;
use super::kinds::Resource;
use super::objects::{
    Deletion, Part, created, deletion, fields, is_finished, merge_patch, metadata, updated,
};
use super::request::{Call, Target};
use super::state::State;
use super::store::{ObjectName, Stored};

/// What a write leads to.
#[derive(Debug)]
pub(super) enum Written {
    Created(Arc<Stored>),
    Stored(Arc<Stored>),
    /// The object's last version.
    Gone(Arc<Stored>),
}

impl State {
    pub(super) fn create(
        &mut self,
        resource: &Resource,
        target: &Target,
        call: &Call,
    ) -> Result<Written, ApiError> {
        let mut object = call.body.clone();
        self.name(resource, target, &mut object)?;
        let name = key(&object);
        if self.store.get(&resource.id, &name).is_some() {
            return Err(ApiError::already_exists(&resource.id, &name.name));
        }
        if resource.namespaced {
            self.check_namespace(&name.namespace)?;
        }
        let now = self.now();
        let mut object = created(resource, object, &now)?;
        self.allocate(resource, &mut object)?;
        let nothing = json!({});
        note_update(resource, &nothing, &mut object, &manager(call, Operation::Update, Part::Main));
        date_entries(&nothing, &mut object, &resource.api_version(), &now.time);
        Ok(Written::Created(self.store_unless_dry(resource, name, Some(object), call)))
    }

    pub(super) fn replace(
        &mut self,
        resource: &Resource,
        target: &Target,
        call: &Call,
    ) -> Result<Written, ApiError> {
        let part = part(target);
        let name = target_key(target);
        let Some(old) = self.store.get(&resource.id, &name).cloned() else {
            // A Lease may be made by its first update.
            let makes = resource.is("coordination.k8s.io", "leases") && part == Part::Main;
            return if makes { self.create(resource, target, call) } else { Err(missing(resource, &name)) };
        };
        let metadata = &call.body["metadata"];
        if metadata["name"] != name.name.as_str() {
            return Err(ApiError::bad_request("the name of the object does not match the name on the URL"));
        }
        let must_name_revision = resource.is_custom() || resource.is("coordination.k8s.io", "leases");
        let names_revision = metadata["resourceVersion"].as_str().is_some_and(|version| !version.is_empty());
        if must_name_revision && !names_revision {
            let what = "metadata.resourceVersion: Invalid value: 0: must be specified for an update";
            return Err(ApiError::invalid(&resource.kind, &name.name, what));
        }
        check_preconditions(resource, &old, metadata)?;
        let object = updated(resource, &old.value, call.body.clone(), part);
        self.finish_update(resource, name, &old, object, call, &manager(call, Operation::Update, part))
    }

    pub(super) fn patch(
        &mut self,
        resource: &Resource,
        target: &Target,
        call: &Call,
    ) -> Result<Written, ApiError> {
        let name = target_key(target);
        let old = self.store.get(&resource.id, &name).cloned();
        match call.content_type.as_str() {
            "application/merge-patch+json" => {
                let old = old.ok_or_else(|| missing(resource, &name))?;
                check_preconditions(resource, &old, &call.body["metadata"])?;
                let mut object = old.value.clone();
                merge_patch(&mut object, &call.body);
                let entries = object["metadata"]["managedFields"].clone();
                let mut object = updated(resource, &old.value, object, part(target));
                // Fields may be taken from their owners.
                if entries.as_array().is_some_and(|entries| !entries.is_empty()) {
                    metadata(&mut object).insert("managedFields".into(), entries);
                }
                self.finish_update(
                    resource,
                    name,
                    &old,
                    object,
                    call,
                    &manager(call, Operation::Update, part(target)),
                )
            }
            "application/apply-patch+yaml" => self.apply(resource, target, old, call),
            other => Err(ApiError::unsupported_media_type(other)),
        }
    }

    fn apply(
        &mut self,
        resource: &Resource,
        target: &Target,
        old: Option<Arc<Stored>>,
        call: &Call,
    ) -> Result<Written, ApiError> {
        let (name, part) = (target_key(target), part(target));
        let invalid = |what| Err(ApiError::invalid("PatchOptions.meta.k8s.io", "", what));
        if call.query.text("fieldManager").is_empty() {
            return invalid("fieldManager: Required value: is required for apply patch");
        }
        if call.body["apiVersion"].is_null() || call.body["kind"].is_null() {
            return Err(ApiError::bad_request("apiVersion and kind must be set in what is applied"));
        }
        if !call.body["metadata"]["managedFields"].is_null() {
            return Err(ApiError::bad_request("metadata.managedFields must be nil"));
        }
        let manager = manager(call, Operation::Apply, part);
        let force = call.query.flag("force");
        let Some(old) = old else { return self.apply_new(resource, name, call, &manager) };
        check_preconditions(resource, &old, &call.body["metadata"])?;
        let applied = apply(resource, &old.value, &call.body, &manager, force)?;
        let entries = applied["metadata"]["managedFields"].clone();
        let mut object = updated(resource, &old.value, applied, part);
        // What is applied to an endpoint is written there alone, and owned there.
        metadata(&mut object).insert("managedFields".into(), entries);
        self.finish(resource, name, &old, object, call)
    }

    fn apply_new(
        &mut self,
        resource: &Resource,
        name: ObjectName,
        call: &Call,
        manager: &Manager,
    ) -> Result<Written, ApiError> {
        let has_revision = call.body["metadata"]["resourceVersion"].is_string();
        if manager.part == Part::Status || has_revision {
            return Err(missing(resource, &name));
        }
        if resource.namespaced {
            self.check_namespace(&name.namespace)?;
        }
        let mut base = json!({"metadata": {"name": name.name}});
        if resource.namespaced {
            base["metadata"]["namespace"] = name.namespace.clone().into();
        }
        let applied = apply(resource, &base, &call.body, manager, false)?;
        let entries = applied["metadata"]["managedFields"].clone();
        let now = self.now();
        let mut object = created(resource, applied, &now)?;
        self.allocate(resource, &mut object)?;
        metadata(&mut object).insert("managedFields".into(), entries);
        date_entries(&json!({}), &mut object, &resource.api_version(), &now.time);
        Ok(Written::Created(self.store_unless_dry(resource, name, Some(object), call)))
    }

    fn finish_update(
        &mut self,
        resource: &Resource,
        name: ObjectName,
        old: &Arc<Stored>,
        mut object: Value,
        call: &Call,
        manager: &Manager,
    ) -> Result<Written, ApiError> {
        note_update(resource, &old.value, &mut object, manager);
        self.finish(resource, name, old, object, call)
    }

    /// Stores what an update made of an object, if that is anything new.
    fn finish(
        &mut self,
        resource: &Resource,
        name: ObjectName,
        old: &Arc<Stored>,
        mut object: Value,
        call: &Call,
    ) -> Result<Written, ApiError> {
        date_entries(&old.value, &mut object, &resource.api_version(), &self.now().time);
        if is_finished(&object) {
            return Ok(Written::Gone(self.store_unless_dry(resource, name, None, call)));
        }
        if object == old.value {
            return Ok(Written::Stored(Arc::clone(old)));
        }
        Ok(Written::Stored(self.store_unless_dry(resource, name, Some(object), call)))
    }

    pub(super) fn delete(
        &mut self,
        resource: &Resource,
        target: &Target,
        call: &Call,
    ) -> Result<Written, ApiError> {
        let name = target_key(target);
        let old = self.store.get(&resource.id, &name).cloned().ok_or_else(|| missing(resource, &name))?;
        check_preconditions(resource, &old, &call.body["preconditions"])?;
        self.delete_one(resource, name, &old, call)
    }

    pub(super) fn delete_one(
        &mut self,
        resource: &Resource,
        name: ObjectName,
        old: &Arc<Stored>,
        call: &Call,
    ) -> Result<Written, ApiError> {
        let seconds = match call.query.number("gracePeriodSeconds")? {
            Some(seconds) => Some(seconds),
            None => call.body["gracePeriodSeconds"].as_u64(),
        };
        match deletion(resource, &old.value, seconds, &self.now()) {
            Deletion::Gone => Ok(Written::Gone(self.store_unless_dry(resource, name, None, call))),
            Deletion::Marked(object) if object == old.value => Ok(Written::Stored(Arc::clone(old))),
            Deletion::Marked(object) => {
                Ok(Written::Stored(self.store_unless_dry(resource, name, Some(object), call)))
            }
        }
    }

    /// Gives the object the name and namespace of the request.
    fn name(&self, resource: &Resource, target: &Target, object: &mut Value) -> Result<(), ApiError> {
        let metadata = metadata(object);
        if resource.namespaced {
            let namespace = target.namespace.clone().unwrap_or_default();
            let given = metadata.get("namespace").and_then(Value::as_str).unwrap_or_default();
            if !given.is_empty() && given != namespace {
                let message =
                    "the namespace of the provided object does not match the namespace sent on the request";
                return Err(ApiError::bad_request(message));
            }
            metadata.insert("namespace".into(), namespace.into());
        }
        let named = metadata.get("name").and_then(Value::as_str).is_some_and(|name| !name.is_empty());
        if named {
            return Ok(());
        }
        let prefix = metadata.get("generateName").and_then(Value::as_str).unwrap_or_default().to_owned();
        if prefix.is_empty() {
            return Err(ApiError::invalid(&resource.kind, "", "name or generateName is required"));
        }
        let suffix: String = self.now().uid.chars().take(5).collect();
        fields(object)["metadata"]["name"] = format!("{prefix}{suffix}").into();
        Ok(())
    }
}

/// Who writes: by option, or by what the client calls itself.
fn manager(call: &Call, operation: Operation, part: Part) -> Manager {
    let of_client = || call.user_agent.split('/').next().unwrap_or_default().to_owned();
    let name = match call.query.text("fieldManager") {
        "" => of_client(),
        name => name.to_owned(),
    };
    Manager { name: if name.is_empty() { "unknown".into() } else { name }, operation, part }
}

fn check_preconditions(resource: &Resource, old: &Stored, wanted: &Value) -> Result<(), ApiError> {
    let metadata = &old.value["metadata"];
    let name = metadata["name"].as_str().unwrap_or_default();
    let asked = |field: &str| wanted[field].as_str().filter(|value| !value.is_empty());
    if let Some(uid) = asked("uid")
        && metadata["uid"] != uid
    {
        let why = format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            metadata["uid"]
        );
        return Err(ApiError::conflict(&resource.id, name, &why));
    }
    match asked("resourceVersion") {
        Some(version) if metadata["resourceVersion"] != version => {
            Err(ApiError::modified(&resource.id, name))
        }
        Some(_) | None => Ok(()),
    }
}

fn part(target: &Target) -> Part {
    if target.subresource.is_some() { Part::Status } else { Part::Main }
}

fn missing(resource: &Resource, name: &ObjectName) -> ApiError {
    ApiError::not_found(&resource.id, &name.name)
}

pub(super) fn target_key(target: &Target) -> ObjectName {
    ObjectName {
        namespace: target.namespace.clone().unwrap_or_default(),
        name: target.name.clone().unwrap_or_default(),
    }
}

fn key(object: &Value) -> ObjectName {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    ObjectName { namespace: text("namespace"), name: text("name") }
}
