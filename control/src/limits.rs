//! How much of control one client can use: rates by token bucket, and turns at what few can do at a
//! time.
//!
//! What is limited, and what a refused client is told, is each user's own concern.

pub mod buckets;
pub mod turns;
