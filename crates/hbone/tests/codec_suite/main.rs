//! The codec against itself, against hostile peers, and against implementations that are not ours.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a test ends where it panics")]

mod h2_peer;
mod hostile;
mod nghttp2;
mod pair;
mod properties;
mod rules;
mod shell;
mod support;
