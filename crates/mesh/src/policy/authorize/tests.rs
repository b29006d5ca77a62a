//! The truth table of AuthorizationPolicy at layer 4, and what no combination may do.
