//! Why a request fails, as the API server words it: a `Status` with a code and a reason.

use serde_json::{Value, json};

use super::kinds::ResourceId;

/// A request that fails.
#[derive(Clone, Debug)]
pub(super) struct ApiError {
    pub(super) code: u16,
    reason: &'static str,
    message: String,
    details: Value,
}

impl ApiError {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: Value::Null }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub(super) fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(403, "Forbidden", message)
    }

    pub(super) fn not_found(id: &ResourceId, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", id.qualified());
        Self::new(404, "NotFound", message).about(id, name)
    }

    /// No such path, kind or version. The real server answers with plain text; so does `serve.rs`.
    pub(super) fn no_such_path() -> Self {
        Self::new(404, "", "404 page not found")
    }

    pub(super) fn is_plain_text(&self) -> bool {
        self.reason.is_empty()
    }

    pub(super) fn method_not_allowed() -> Self {
        Self::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    }

    pub(super) fn already_exists(id: &ResourceId, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", id.qualified());
        Self::new(409, "AlreadyExists", message).about(id, name)
    }

    pub(super) fn modified(id: &ResourceId, name: &str) -> Self {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(id, name, why)
    }

    pub(super) fn conflict(id: &ResourceId, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", id.qualified());
        Self::new(409, "Conflict", message).about(id, name)
    }

    /// Fields that other managers own, each with its owner.
    pub(super) fn owned_by_others(fields: &[(String, String)]) -> Self {
        let causes: Vec<Value> = fields
            .iter()
            .map(|(field, manager)| {
                let message = format!("conflict with \"{manager}\"");
                json!({"reason": "FieldManagerConflict", "message": message, "field": field})
            })
            .collect();
        let plural = if fields.len() == 1 { "conflict" } else { "conflicts" };
        let message = format!("Apply failed with {} {plural}: {causes:?}", fields.len());
        Self { details: json!({"causes": causes}), ..Self::new(409, "Conflict", message) }
    }

    /// The revision has been compacted.
    pub(super) fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    pub(super) fn unsupported_media_type(kind: &str) -> Self {
        let message = format!("the body of the request was in an unknown format: {kind}");
        Self::new(415, "UnsupportedMediaType", message)
    }

    pub(super) fn invalid(kind: &str, name: &str, what: &str) -> Self {
        Self::new(422, "Invalid", format!("{kind} \"{name}\" is invalid: {what}"))
    }

    pub(super) fn too_large_resource_version(asked: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
        let cause = json!({"reason": "ResourceVersionTooLarge", "message": "Too large resource version"});
        let details = json!({"causes": [cause], "retryAfterSeconds": 1});
        Self { details, ..Self::new(504, "Timeout", message) }
    }

    fn about(self, id: &ResourceId, name: &str) -> Self {
        Self { details: json!({"name": name, "group": id.group, "kind": id.plural}), ..self }
    }

    /// The answer's body.
    pub(super) fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if !self.details.is_null() {
            status["details"] = self.details.clone();
        }
        status
    }
}
