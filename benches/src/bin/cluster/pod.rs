//! What runs in the pods of a run: servers that answer their name, and the load on them.
//!
//! Nothing here knows of Kubernetes or of the mesh.

mod http1;
pub(crate) mod load;
mod probe;
mod recorder;
pub(crate) mod serve;
mod steer;

/// The ports of the pods.
pub(crate) mod ports {
    /// Requests are answered, by whomever they come.
    pub(crate) const HTTP: u16 = 8080;
    /// The same; the run's policies allow it to callers with an identity alone.
    pub(crate) const GUARDED: u16 = 8081;
    /// The server's name, then every octet back.
    pub(crate) const ECHO: u16 = 8082;
    /// Readiness, and what the controller asks of a pod.
    pub(crate) const STEER: u16 = 8090;
}
