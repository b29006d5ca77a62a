//! Header blocks of one connection; 0xff 0xff stands between two, and the first octet chooses the
//! table's limit.

#![no_main]

use ambit_hbone::hpack::{Decoder, Encoder};
use libfuzzer_sys::fuzz_target;

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

fn decode(decoder: &mut Decoder, block: &[u8]) -> Option<Fields> {
    let mut fields = Fields::new();
    decoder.decode(block, |name, value| fields.push((name.to_vec(), value.to_vec()))).ok()?;
    Some(fields)
}

fuzz_target!(|data: &[u8]| {
    let Some((choice, data)) = data.split_first() else { return };
    let mut limit = u32::from(*choice) * 32;
    let mut decoder = Decoder::new(limit);
    let mut encoder = Encoder::default();
    let mut again = Decoder::new(0);
    let mut rest = data;
    loop {
        let end = rest.windows(2).position(|pair| pair == [0xff, 0xff]);
        let block = &rest[..end.unwrap_or(rest.len())];
        let Some(fields) = decode(&mut decoder, block) else { return };
        assert!(decoder.table_size() <= limit as usize);

        let mut written = Vec::new();
        let mut out = encoder.begin(&mut written);
        fields.iter().for_each(|(name, value)| out.field(name, value));
        assert_eq!(decode(&mut again, &written), Some(fields));

        let Some(end) = end else { return };
        rest = &rest[end + 2..];
        if block.first() == Some(&0x20) {
            limit /= 2;
            decoder.set_limit(limit);
            // The table shrinks with the update that the next block has to begin with.
            limit = limit.max(decoder.table_size() as u32);
        }
    }
});
