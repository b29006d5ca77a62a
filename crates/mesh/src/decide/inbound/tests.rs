//! The table of inbound decisions.
