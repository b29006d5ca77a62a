//! Tokens of ServiceAccounts, as kubelets ask for them.

use kube::Client;
use serde_json::{Value, json};

/// A pod that a token is bound to: it is worth nothing when the pod is gone.
#[derive(Clone, Debug)]
pub struct BoundTo {
    /// Its name.
    pub pod: String,
    /// Its UID.
    pub uid: String,
}

/// Asks for a token of an account.
///
/// # Errors
/// When the API server refuses.
pub async fn request(
    client: &Client,
    (namespace, account): (&str, &str),
    audiences: &[&str],
    bound_to: Option<&BoundTo>,
) -> kube::Result<String> {
    let mut spec = json!({"audiences": audiences, "expirationSeconds": 3600});
    if let Some(BoundTo { pod, uid }) = bound_to {
        spec["boundObjectRef"] = json!({"kind": "Pod", "apiVersion": "v1", "name": pod, "uid": uid});
    }
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
    let request =
        http::Request::post(path).body(body.to_string().into_bytes()).map_err(kube::Error::HttpError)?;
    let answer: Value = client.request(request).await?;
    Ok(answer["status"]["token"].as_str().unwrap_or_default().to_owned())
}
