//! The HBONE tunnel.
