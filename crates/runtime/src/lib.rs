//! What every program of the mesh has: an orderly end ([`shutdown`], [`drain`]), [`readiness`], the
//! local [`admin`] server, [`telemetry`] and the common part of the [`config`].
//!
//! Nothing here knows what a program does; it depends on the mesh's vocabulary for labels alone.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod admin;
pub mod config;
pub mod drain;
pub mod readiness;
pub mod shutdown;
pub mod telemetry;
