//! The target of a request, as it comes.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|target: &str| ambit_mesh_fuzz::path(target));
