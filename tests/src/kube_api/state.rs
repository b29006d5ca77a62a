//! The server's mind: one call in, one reply out, without IO.

use std::sync::Arc;

use anyhow::{Context, anyhow};
use bytes::Bytes;
use rand::RngCore;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::auth::Tokens;
use super::discovery::{self, REVIEWS};
use super::errors::ApiError;
use super::kinds::{CRDS, Resource, ResourceId, built_in, custom};
use super::list::{Scope, list};
use super::objects::{Now, created};
use super::rbac::{Asked, Audit};
use super::render::Form;
use super::request::{Call, Method, Target, Verb};
use super::store::{ObjectName, Store, Stored};
use super::watch::Watching;
use super::write::{Written, target_key};

/// Everything that the server knows.
#[derive(Debug)]
pub(super) struct State {
    pub(super) store: Store,
    built_in: Vec<Resource>,
    custom: Vec<Resource>,
    pub(super) tokens: Tokens,
    pub(super) audit: Audit,
}

/// What a call is answered with.
#[derive(Debug)]
pub(super) enum Reply {
    Body(u16, Bytes),
    Watch(Box<Watching>),
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            store: Store::default(),
            built_in: built_in().collect(),
            custom: Vec::new(),
            tokens: Tokens::default(),
            audit: Audit::default(),
        }
    }

    pub(super) fn handle(&mut self, call: &Call) -> Result<Reply, ApiError> {
        let segments: Vec<&str> = call.path.split('/').filter(|segment| !segment.is_empty()).collect();
        let resources: Vec<&Resource> = self.resources().collect();
        if call.method == Method::Get
            && let Some(document) = discovery::document(&segments, &resources)
        {
            return document.map(|document| Reply::Body(200, document.to_string().into()));
        }
        let target = Target::of_path(&segments)?;
        let verb = target.verb(call.method, &call.query);
        self.authorize(&target, verb, call)?;
        if verb == Verb::Create
            && let Some(answer) = self.review(&target, call)
        {
            return answer.map(|answer| Reply::Body(201, answer.to_string().into()));
        }
        self.serve(&target, verb, call)
    }

    /// Makes a namespace that every server has.
    pub(super) fn seed_namespace(&mut self, name: &str) -> anyhow::Result<()> {
        let namespaces = self.built_in.iter().find(|resource| resource.is("", "namespaces"));
        let namespaces = namespaces.context("namespaces are in the table")?.clone();
        let object = created(&namespaces, json!({"metadata": {"name": name}}), &self.now());
        let object = object.map_err(|error| anyhow!("{}", error.status()))?;
        let key = ObjectName { namespace: String::new(), name: name.into() };
        self.store.commit(&namespaces.id, key, Some(object));
        Ok(())
    }

    /// Whether a watch may go on: its kind is still served.
    pub(super) fn serves(&self, id: &ResourceId) -> bool {
        self.resources().any(|resource| resource.id == *id)
    }

    fn resources(&self) -> impl Iterator<Item = &Resource> {
        self.built_in.iter().chain(&self.custom)
    }

    fn serve(&mut self, target: &Target, verb: Verb, call: &Call) -> Result<Reply, ApiError> {
        let found = self.resources().find(|resource| {
            resource.is(&target.group, &target.plural) && resource.version == target.version
        });
        let resource = found.cloned().ok_or_else(ApiError::no_such_path)?;
        let is_status = match target.subresource.as_deref() {
            None => false,
            Some("status") if resource.has_status => true,
            Some(_) => return Err(ApiError::no_such_path()),
        };
        let is_one = target.name.is_some() || verb == Verb::Create;
        if is_one && resource.namespaced != target.namespace.is_some() {
            return Err(ApiError::no_such_path());
        }
        let form = Form::new(&resource, &call.accept);
        let scope = Scope::new(&resource, target, &call.query)?;
        match verb {
            Verb::Get => {
                let name = target_key(target);
                let found = self.store.get(&resource.id, &name);
                let found = found.ok_or_else(|| ApiError::not_found(&resource.id, &name.name))?;
                Ok(Reply::Body(200, form.object(found)))
            }
            Verb::List => {
                list(&self.store, &resource, &scope, &call.query, &form).map(|list| Reply::Body(200, list))
            }
            Verb::Watch => Watching::new(&self.store, resource, scope, form, &call.query)
                .map(|watching| Reply::Watch(Box::new(watching))),
            Verb::Create if target.name.is_none() => {
                let written = self.create(&resource, target, call)?;
                Ok(written.reply(&resource, &form))
            }
            Verb::Update if target.name.is_some() => {
                let written = self.replace(&resource, target, call)?;
                Ok(written.reply(&resource, &form))
            }
            Verb::Patch if target.name.is_some() => {
                let exists = self.store.get(&resource.id, &target_key(target)).is_some();
                if !exists && call.content_type == "application/apply-patch+yaml" && !is_status {
                    self.authorize(target, Verb::Create, call)?;
                }
                let written = self.patch(&resource, target, call)?;
                Ok(written.reply(&resource, &form))
            }
            Verb::Delete if !is_status => {
                let written = self.delete(&resource, target, call)?;
                Ok(written.reply(&resource, &form))
            }
            Verb::DeleteCollection => self.delete_collection(&resource, &scope, call),
            Verb::Create | Verb::Update | Verb::Patch | Verb::Delete => Err(ApiError::method_not_allowed()),
        }
    }

    fn delete_collection(
        &mut self,
        resource: &Resource,
        scope: &Scope,
        call: &Call,
    ) -> Result<Reply, ApiError> {
        let chosen: Vec<(ObjectName, Arc<Stored>)> = self
            .store
            .all(&resource.id)
            .filter(|(name, stored)| scope.matches(name, &stored.value))
            .map(|(name, stored)| (name.clone(), Arc::clone(stored)))
            .collect();
        for (name, stored) in chosen {
            self.delete_one(resource, name, &stored, call)?;
        }
        Ok(success(200))
    }

    fn authorize(&mut self, target: &Target, verb: Verb, call: &Call) -> Result<(), ApiError> {
        let asked = Asked::new(target, verb, &call.query);
        let what = format!("resource \"{}\" in API group \"{}\"", asked.resource, asked.group);
        let message = format!(
            "{}.{} \"{}\" is forbidden: User \"{}\" cannot {} {what} in the namespace \"{}\"",
            asked.resource,
            asked.group,
            asked.name,
            call.user.name,
            verb.name(),
            asked.namespace
        );
        // Everybody may ask who they are.
        let is_basic = target.plural == "selfsubjectreviews";
        match is_basic || self.audit.authorize(&self.store, &call.user, asked) {
            true => Ok(()),
            false => Err(ApiError::forbidden(message)),
        }
    }

    /// Answers kinds that store nothing.
    fn review(&mut self, target: &Target, call: &Call) -> Option<Result<Value, ApiError>> {
        let now = OffsetDateTime::now_utc();
        let mut answer = call.body.clone();
        if target.group.is_empty() && target.plural == "serviceaccounts" {
            (target.subresource.as_deref() == Some("token")).then_some(())?;
            let id = self.now().uid;
            return Some(self.tokens.issue(&self.store, target_key(target), answer, (now, id)));
        }
        let (_, plural, _) =
            REVIEWS.iter().find(|(group, plural, _)| *group == target.group && *plural == target.plural)?;
        answer["status"] = match *plural {
            "tokenreviews" => self.tokens.review(&self.store, &call.body, now),
            _ => json!({"userInfo": call.user.info()}),
        };
        Some(Ok(answer))
    }

    /// Commits a change and what follows from it, unless the request is a dry run.
    pub(super) fn store_unless_dry(
        &mut self,
        resource: &Resource,
        name: ObjectName,
        object: Option<Value>,
        call: &Call,
    ) -> Arc<Stored> {
        if call.query.text("dryRun") == "All" {
            let old = || self.store.get(&resource.id, &name).map(|stored| stored.value.clone());
            return Arc::new(Stored::new(object.or_else(old).unwrap_or_default()));
        }
        let is_gone = object.is_none();
        if is_gone {
            self.delete_what_is_in(resource, &name);
        }
        let shown = self.store.commit(&resource.id, name, object);
        if resource.is(CRDS.0, CRDS.1) {
            let definitions = self.store.all(&resource.id);
            self.custom = definitions.flat_map(|(_, definition)| custom(&definition.value)).collect();
        }
        shown
    }

    /// With a namespace go its objects, and with a definition those of its kind.
    fn delete_what_is_in(&mut self, resource: &Resource, name: &ObjectName) {
        let mut inside: Vec<(ResourceId, ObjectName)> = Vec::new();
        if resource.is("", "namespaces") {
            for id in self.store.kinds() {
                let objects = self.store.all(id).filter(|(object, _)| object.namespace == name.name);
                inside.extend(objects.map(|(object, _)| (id.clone(), object.clone())));
            }
        } else if resource.is(CRDS.0, CRDS.1)
            && let Some(definition) = self.store.get(&resource.id, name)
        {
            for kind in custom(&definition.value) {
                let objects = self.store.all(&kind.id);
                inside.extend(objects.map(|(object, _)| (kind.id.clone(), object.clone())));
            }
            inside.dedup();
        }
        for (id, object) in inside {
            self.store.commit(&id, object, None);
        }
    }

    pub(super) fn check_namespace(&self, name: &str) -> Result<(), ApiError> {
        let namespaces = ResourceId::new("", "namespaces");
        let key = ObjectName { namespace: String::new(), name: name.into() };
        self.store.get(&namespaces, &key).map(drop).ok_or_else(|| ApiError::not_found(&namespaces, name))
    }

    /// Gives a Service its address.
    pub(super) fn allocate(&self, resource: &Resource, object: &mut Value) -> Result<(), ApiError> {
        if !resource.is("", "services") || object["spec"]["type"] == "ExternalName" {
            return Ok(());
        }
        let taken =
            |ip: &str| self.store.all(&resource.id).any(|(_, one)| one.value["spec"]["clusterIP"] == ip);
        if object["spec"]["clusterIP"].is_null() {
            let free = (self.store.revision()..).map(|number| {
                let [.., third, last] = number.to_be_bytes();
                format!("10.96.{third}.{last}")
            });
            let ip = free.take(1 << 16).find(|ip| !taken(ip)).unwrap_or_default();
            object["spec"]["clusterIP"] = ip.into();
        }
        let ip = object["spec"]["clusterIP"].clone();
        if ip != "None" && ip.as_str().is_some_and(taken) {
            let what = "spec.clusterIPs[0]: Invalid value: provided IP is already allocated";
            return Err(ApiError::invalid("Service", "", what));
        }
        if object["spec"]["clusterIPs"].is_null() {
            object["spec"]["clusterIPs"] = json!([ip]);
        }
        if object["spec"]["type"].is_null() {
            object["spec"]["type"] = "ClusterIP".into();
        }
        Ok(())
    }

    pub(super) fn now(&self) -> Now {
        let now = OffsetDateTime::now_utc();
        let time = now.replace_nanosecond(0).unwrap_or(now).format(&Rfc3339).unwrap_or_default();
        let mut octets = [0; 16];
        rand::rng().fill_bytes(&mut octets);
        let hex: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
        let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
        let uid =
            format!("{}-{}-4{}-8{}-{}", part(0, 8), part(8, 12), part(13, 16), part(17, 20), part(20, 32));
        Now { time, uid }
    }
}

impl Written {
    fn reply(&self, resource: &Resource, form: &Form) -> Reply {
        match self {
            Self::Created(stored) => Reply::Body(201, form.object(stored)),
            Self::Stored(stored) => Reply::Body(200, form.object(stored)),
            // Of most kinds the answer says no more than that it is gone.
            Self::Gone(stored) if resource.is("", "pods") => Reply::Body(200, form.object(stored)),
            Self::Gone(_) => success(200),
        }
    }
}

fn success(code: u16) -> Reply {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
    Reply::Body(code, status.to_string().into())
}
