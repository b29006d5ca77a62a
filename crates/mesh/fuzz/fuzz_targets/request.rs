//! Routes, policies and a request.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| ambit_mesh_fuzz::request(data));
