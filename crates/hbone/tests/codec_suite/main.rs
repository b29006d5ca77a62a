//! The codec against itself, against hostile peers, and against implementations that are not ours.

mod hostile;
mod pair;
mod properties;
mod rules;
mod support;
