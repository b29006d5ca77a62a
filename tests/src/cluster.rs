//! A Kubernetes cluster as control sees it: objects, written through the API, and control itself.
//!
//! Nobody runs the pods. Whoever makes them says for kubelets and controllers what those would say.

pub mod control;
pub mod crowd;
pub mod kinds;
pub mod node;
pub mod token;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::json;

/// Writes a kubeconfig for a server that asks for no credentials.
///
/// # Errors
/// When the file cannot be written.
pub fn write_kubeconfig(directory: &Path, name: &str, url: &str) -> Result<PathBuf> {
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    });
    let file = directory.join(format!("{name}.kubeconfig"));
    fs::write(&file, config.to_string())?;
    Ok(file)
}

/// A name that nobody else has.
pub fn unique(prefix: &str) -> String {
    format!("{prefix}-{:08x}", rand::random::<u32>())
}
