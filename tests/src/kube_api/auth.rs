//! Who asks: users with fixed tokens, and ServiceAccounts with tokens that are bound to pods.
//!
//! Tokens have the form and the claims of real ones; what they are worth is what is recorded of them here,
//! not a signature.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use super::errors::ApiError;
use super::kinds::ResourceId;
use super::store::{ObjectName, Store};

/// The audience of the API server itself.
const API_AUDIENCE: &str = "https://kubernetes.default.svc";

/// Who a request comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    uid: String,
    pub(super) groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// A user who may do everything.
    pub(super) fn master() -> Self {
        Self::new("admin", &["system:masters"])
    }

    pub(super) fn new(name: &str, groups: &[&str]) -> Self {
        let groups =
            groups.iter().chain(&["system:authenticated"]).map(|group| (*group).to_owned()).collect();
        Self { name: name.into(), groups, ..Self::default() }
    }

    pub(super) fn info(&self) -> Value {
        json!({"username": self.name, "uid": self.uid, "groups": self.groups, "extra": self.extra})
    }
}

/// A ServiceAccount's token.
#[derive(Clone, Debug)]
struct Issued {
    account: ObjectName,
    account_uid: String,
    /// Name and UID.
    pod: Option<(String, String)>,
    node: Option<(String, Option<String>)>,
    audiences: Vec<String>,
    expires: OffsetDateTime,
    id: String,
}

/// Every token that is known.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    users: BTreeMap<String, User>,
    issued: BTreeMap<String, Issued>,
}

impl Tokens {
    pub(super) fn add_user(&mut self, token: &str, user: User) {
        self.users.insert(token.into(), user);
    }

    /// Makes a token expire now.
    pub(super) fn expire(&mut self, token: &str, now: OffsetDateTime) {
        if let Some(issued) = self.issued.get_mut(token) {
            issued.expires = now;
        }
    }

    /// Who shows this token to the API server.
    pub(super) fn user(&self, store: &Store, token: &str, now: OffsetDateTime) -> Option<User> {
        let user = self.users.get(token).cloned();
        user.or_else(|| Some(self.verify(store, token, &[API_AUDIENCE.to_owned()], now).ok()?.0))
    }

    /// The answer to a TokenReview.
    pub(super) fn review(&self, store: &Store, review: &Value, now: OffsetDateTime) -> Value {
        let spec = &review["spec"];
        let token = spec["token"].as_str().unwrap_or_default();
        let asked = strings(&spec["audiences"]);
        let audiences = if asked.is_empty() { vec![API_AUDIENCE.to_owned()] } else { asked };
        match (self.users.get(token), self.verify(store, token, &audiences, now)) {
            // Fixed tokens know no audiences, and are those of the API server.
            (Some(user), _) if audiences.iter().any(|audience| audience == API_AUDIENCE) => {
                json!({"authenticated": true, "user": user.info(), "audiences": [API_AUDIENCE]})
            }
            (_, Ok((user, audiences))) => {
                json!({"authenticated": true, "user": user.info(), "audiences": audiences})
            }
            (_, Err(error)) => json!({"user": {}, "error": format!("[invalid bearer token, {error}]")}),
        }
    }

    fn verify(
        &self,
        store: &Store,
        token: &str,
        audiences: &[String],
        now: OffsetDateTime,
    ) -> Result<(User, Vec<String>), String> {
        let issued = self.issued.get(token).ok_or("it was not issued here")?;
        let shared: Vec<String> =
            issued.audiences.iter().filter(|audience| audiences.contains(audience)).cloned().collect();
        if shared.is_empty() {
            let (own, wanted) = (&issued.audiences, audiences);
            return Err(format!("token audiences {own:?} is invalid for the target audiences {wanted:?}"));
        }
        if issued.expires <= now {
            return Err("service account token has expired".into());
        }
        let account = store.get(&ResourceId::new("", "serviceaccounts"), &issued.account);
        if account.is_none_or(|account| account.value["metadata"]["uid"] != issued.account_uid.as_str()) {
            return Err("service account token has been invalidated".into());
        }
        if let Some((name, uid)) = &issued.pod {
            let name = ObjectName { name: name.clone(), ..issued.account.clone() };
            let pod = store.get(&ResourceId::new("", "pods"), &name);
            let lives = pod.is_some_and(|pod| {
                pod.value["metadata"]["uid"] == uid.as_str() && !is_long_deleted(&pod.value, now)
            });
            if !lives {
                return Err("service account token has been invalidated".into());
            }
        }
        Ok((issued.user(), shared))
    }

    /// The answer to a TokenRequest.
    pub(super) fn issue(
        &mut self,
        store: &Store,
        account: ObjectName,
        mut request: Value,
        (now, id): (OffsetDateTime, String),
    ) -> Result<Value, ApiError> {
        let accounts = ResourceId::new("", "serviceaccounts");
        let found =
            store.get(&accounts, &account).ok_or_else(|| ApiError::not_found(&accounts, &account.name))?;
        let account_uid = text(&found.value["metadata"]["uid"]);
        let seconds = request["spec"]["expirationSeconds"].as_i64().unwrap_or(3600);
        if seconds < 600 {
            let what =
                "spec.expirationSeconds: Invalid value: may not specify a duration less than 10 minutes";
            return Err(ApiError::invalid("TokenRequest", "", what));
        }
        let pod = bound_pod(store, &account, &request["spec"]["boundObjectRef"])?;
        let node = pod.as_ref().and_then(|pod| node_of(store, pod));
        let pod = pod.map(|pod| (text(&pod["metadata"]["name"]), text(&pod["metadata"]["uid"])));
        let asked = strings(&request["spec"]["audiences"]);
        let audiences = if asked.is_empty() { vec![API_AUDIENCE.to_owned()] } else { asked };
        let expires = now + Duration::seconds(seconds);
        let issued = Issued { account, account_uid, pod, node, audiences, expires, id };
        let token = issued.token(now);
        self.issued.insert(token.clone(), issued);
        let expires = expires.replace_nanosecond(0).unwrap_or(expires).format(&Rfc3339).unwrap_or_default();
        request["status"] = json!({"token": token, "expirationTimestamp": expires});
        Ok(request)
    }
}

impl Issued {
    fn user(&self) -> User {
        let namespace = &self.account.namespace;
        let account = format!("system:serviceaccount:{namespace}:{}", self.account.name);
        let group = format!("system:serviceaccounts:{namespace}");
        let mut extra = BTreeMap::new();
        let mut set = |key: &str, value: &str| {
            extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
        };
        set("credential-id", &format!("JTI={}", self.id));
        if let Some((name, uid)) = &self.pod {
            set("pod-name", name);
            set("pod-uid", uid);
        }
        if let Some((name, uid)) = &self.node {
            set("node-name", name);
            if let Some(uid) = uid {
                set("node-uid", uid);
            }
        }
        let user = User::new(&account, &["system:serviceaccounts", &group]);
        User { uid: self.account_uid.clone(), extra, ..user }
    }

    fn token(&self, now: OffsetDateTime) -> String {
        let account = &self.account;
        let mut kubernetes = json!({
            "namespace": account.namespace,
            "serviceaccount": {"name": account.name, "uid": self.account_uid},
        });
        if let Some((name, uid)) = &self.pod {
            kubernetes["pod"] = json!({"name": name, "uid": uid});
        }
        if let Some((name, uid)) = &self.node {
            kubernetes["node"] = json!({"name": name, "uid": uid});
        }
        let claims = json!({
            "aud": self.audiences, "exp": self.expires.unix_timestamp(), "iat": now.unix_timestamp(),
            "iss": API_AUDIENCE, "jti": self.id, "kubernetes.io": kubernetes, "nbf": now.unix_timestamp(),
            "sub": format!("system:serviceaccount:{}:{}", account.namespace, account.name),
        });
        let part = |text: String| URL_SAFE_NO_PAD.encode(text);
        let header = json!({"alg": "RS256", "kid": "double"});
        format!("{}.{}.{}", part(header.to_string()), part(claims.to_string()), part(self.id.clone()))
    }
}

fn bound_pod(store: &Store, account: &ObjectName, reference: &Value) -> Result<Option<Value>, ApiError> {
    if reference.is_null() {
        return Ok(None);
    }
    let pods = ResourceId::new("", "pods");
    if reference["kind"] != "Pod" {
        return Err(ApiError::bad_request("cannot bind token to an object of this kind"));
    }
    let name = ObjectName { namespace: account.namespace.clone(), name: text(&reference["name"]) };
    let pod = store.get(&pods, &name).ok_or_else(|| ApiError::not_found(&pods, &name.name))?;
    if let Some(uid) = reference["uid"].as_str()
        && pod.value["metadata"]["uid"] != uid
    {
        return Err(ApiError::conflict(
            &pods,
            &name.name,
            "the UID in the bound object reference does not match",
        ));
    }
    if pod.value["spec"]["serviceAccountName"] != account.name.as_str() {
        return Err(ApiError::bad_request(
            "cannot bind token to a pod running with a different service account",
        ));
    }
    Ok(Some(pod.value.clone()))
}

fn node_of(store: &Store, pod: &Value) -> Option<(String, Option<String>)> {
    let name = pod["spec"]["nodeName"].as_str().filter(|name| !name.is_empty())?;
    let key = ObjectName { namespace: String::new(), name: name.into() };
    let node = store.get(&ResourceId::new("", "nodes"), &key);
    Some((name.to_owned(), node.map(|node| text(&node.value["metadata"]["uid"]))))
}

/// A token outlives the beginning of its pod's deletion by a minute.
fn is_long_deleted(pod: &Value, now: OffsetDateTime) -> bool {
    let deleted = pod["metadata"]["deletionTimestamp"].as_str();
    deleted
        .and_then(|time| OffsetDateTime::parse(time, &Rfc3339).ok())
        .is_some_and(|time| now - time > Duration::minutes(1))
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(text).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
