//! Octets of a client.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| waypoint_fuzz::head(octets));
