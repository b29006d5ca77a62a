//! Logs and metrics: the names, labels and keys of Istio, so that dashboards and parsers made for it
//! work.

pub mod access_log;
pub mod http;
pub mod logging;
pub mod metrics;
pub mod tcp;
