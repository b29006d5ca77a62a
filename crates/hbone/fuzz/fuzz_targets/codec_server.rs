//! A hostile client. The first octet chooses our settings; the preface is given, so that the fuzzer
//! need not find it, unless the choice is odd.

#![no_main]

use ambit_hbone::codec::Codec;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((choice, data)) = data.split_first() else { return };
    let settings = ambit_hbone_fuzz::settings(*choice);
    let mut codec = Codec::server(settings);
    if choice % 2 == 0 {
        let opening = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        assert_eq!(codec.receive(&mut &opening[..]), Ok(None));
    }
    ambit_hbone_fuzz::drive(codec, settings.max_concurrent_streams as usize, data);
});
