//! What each replica of control knows of the proxies connected to it, as an object that the others
//! read: only so can the one that writes statuses say "programmed on 3 of 3 proxies".

pub mod digest;
pub mod heard;
pub mod layers;
pub mod merge;
pub mod observe;
pub mod own;
pub mod publish;
pub mod report;
pub mod watch;
