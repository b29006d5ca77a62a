use super::*;
use proptest::prelude::*;

/// The code of a symbol, as the tables define it.
fn code(symbol: u16) -> (u32, usize) {
    let length = usize::from(LENGTHS[usize::from(symbol)]);
    let nth = SYMBOLS.iter().position(|known| *known == symbol).unwrap() as u32 - OFFSET[length];
    (FIRST_CODE[length] + nth, length)
}

fn encode(text: &[u8]) -> Vec<u8> {
    let mut bits: Vec<bool> = Vec::new();
    for octet in text {
        let (code, length) = code(u16::from(*octet));
        bits.extend((0..length).rev().map(|bit| code >> bit & 1 == 1));
    }
    bits.resize(bits.len().next_multiple_of(8), true);
    bits.chunks(8).map(|octet| octet.iter().fold(0, |sum, bit| sum << 1 | u8::from(*bit))).collect()
}

fn decoded(input: &[u8]) -> Result<Vec<u8>, HpackError> {
    let mut out = Vec::new();
    decode(input, &mut out).map(|()| out)
}

#[test]
fn the_codes_are_those_of_rfc_7541_appendix_b() {
    let cases: [(u16, u32, usize); 8] = [
        (u16::from(b'0'), 0x0, 5),
        (u16::from(b'a'), 0x3, 5),
        (u16::from(b' '), 0x14, 6),
        (u16::from(b'&'), 0xf8, 8),
        (u16::from(b'!'), 0x3f8, 10),
        (0, 0x1ff8, 13),
        (10, 0x3fff_fffc, 30),
        (EOS, 0x3fff_ffff, 30),
    ];
    for (symbol, expected, length) in cases {
        assert_eq!(code(symbol), (expected, length), "symbol {symbol}");
    }
}

#[test]
fn the_strings_of_rfc_7541_c_4_are_read() {
    let www = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
    assert_eq!(decoded(&www).unwrap(), b"www.example.com");
    assert_eq!(decoded(&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]).unwrap(), b"no-cache");
    assert_eq!(decoded(&[]).unwrap(), b"");
}

#[test]
fn wrong_padding_and_eos_are_errors() {
    // '0' is five zero bits.
    assert_eq!(decoded(&[0b0000_0111]).unwrap(), b"0");
    assert_eq!(decoded(&[0b0000_0110]), Err(HpackError::HuffmanPadding), "padding of another bit");
    assert_eq!(decoded(&[0b0000_0111, 0xff]), Err(HpackError::HuffmanPadding), "eleven bits of padding");
    assert_eq!(decoded(&[0xff]), Err(HpackError::HuffmanPadding), "an octet of padding");
    assert_eq!(decoded(&[0xff; 4]), Err(HpackError::EosInString));
    assert_eq!(decoded(&[0xff; 5]), Err(HpackError::EosInString));
}

proptest! {
    #[test]
    fn every_string_survives(text in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(decoded(&encode(&text)).unwrap(), text);
    }

    #[test]
    fn any_octets_are_read_or_refused(input in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(text) = decoded(&input) {
            prop_assert_eq!(encode(&text), input);
        }
    }
}
