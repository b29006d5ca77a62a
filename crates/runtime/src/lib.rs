//! What every program of the mesh has: an orderly end ([`shutdown`], [`drain`]), [`readiness`], the
//! local [`admin`] server, [`telemetry`], the common part of the [`config`], and what its connections found out about
//! silent endpoints ([`suspects`]).
//!
//! Nothing here knows what a program does; it depends on the mesh's vocabulary for labels alone.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod admin;
pub mod config;
pub mod drain;
pub mod readiness;
pub mod shutdown;
pub mod suspects;
pub mod telemetry;
