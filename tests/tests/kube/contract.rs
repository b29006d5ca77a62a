//! What we take for granted of an API server.

pub(crate) mod apply;
pub(crate) mod discovery;
pub(crate) mod leases;
pub(crate) mod lists;
pub(crate) mod status;
pub(crate) mod tokens;
pub(crate) mod watches;
pub(crate) mod writes;
