//! A hostile server. The first octet chooses our settings, and whether the server's SETTINGS are
//! given.

#![no_main]

use ambit_hbone::codec::Codec;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((choice, data)) = data.split_first() else { return };
    let settings = ambit_hbone_fuzz::settings(*choice);
    let mut codec = Codec::client(settings);
    if choice % 2 == 0 {
        assert_eq!(codec.receive(&mut &b"\0\0\0\x04\0\0\0\0\0"[..]), Ok(None));
    }
    ambit_hbone_fuzz::drive(codec, settings.max_concurrent_streams as usize, data);
});
