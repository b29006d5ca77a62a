//! The codec against itself, against hostile peers, and against implementations that are not ours.

mod pair;
mod support;
