//! The table of outbound decisions.
