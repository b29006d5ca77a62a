//! Integers with a prefix of N bits (RFC 7541 §5.1).

use super::HpackError;

/// Continuation octets that an integer may have: five reach 2^35, more than any length or index
/// that a bounded header block can need.
const MAX_CONTINUATION: u32 = 5;

/// Reads an integer whose first octet has `prefix` bits for it, and moves `input` behind it.
pub(super) fn decode(input: &mut &[u8], prefix: u32) -> Result<usize, HpackError> {
    let (first, mut rest) = input.split_first().ok_or(HpackError::Truncated)?;
    let limit = (1_u64 << prefix) - 1;
    let mut value = u64::from(*first) & limit;
    if value == limit {
        let mut shift = 0;
        loop {
            let (octet, behind) = rest.split_first().ok_or(HpackError::Truncated)?;
            rest = behind;
            value += u64::from(octet & 0x7f) << shift;
            if octet & 0x80 == 0 {
                break;
            }
            shift += 7;
            // RFC 7541 §5.1: "Integer encodings that exceed implementation limits -- in value or
            // octet length -- MUST be treated as decoding errors."
            if shift == 7 * MAX_CONTINUATION {
                return Err(HpackError::IntegerTooLarge);
            }
        }
    }
    *input = rest;
    usize::try_from(value).map_err(|_| HpackError::IntegerTooLarge)
}

/// Appends `value` behind the bits of `pattern` that a prefix of `prefix` bits leaves free.
pub(super) fn encode(value: usize, prefix: u32, pattern: u8, out: &mut Vec<u8>) {
    let limit = (1_usize << prefix) - 1;
    if value < limit {
        out.push(pattern | value as u8);
        return;
    }
    out.push(pattern | limit as u8);
    let mut rest = value - limit;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_examples_of_rfc_7541_c_1_hold() {
        let cases: [(usize, u32, &[u8]); 3] =
            [(10, 5, &[0b01010]), (1337, 5, &[0b11111, 0b1001_1010, 0b0000_1010]), (42, 8, &[42])];
        for (value, prefix, octets) in cases {
            let mut out = Vec::new();
            encode(value, prefix, 0, &mut out);
            assert_eq!(out, octets);
            assert_eq!(decode(&mut &octets[..], prefix), Ok(value));
        }
    }

    #[test]
    fn endless_and_truncated_integers_are_errors() {
        assert_eq!(decode(&mut &[0xff; 20][..], 7), Err(HpackError::IntegerTooLarge));
        assert_eq!(decode(&mut &[0xff, 0x80][..], 7), Err(HpackError::Truncated));
        assert_eq!(decode(&mut &[][..], 7), Err(HpackError::Truncated));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(value in 0_usize..1 << 35, prefix in 4_u32..=8) {
            let mut out = Vec::new();
            encode(value, prefix, 0, &mut out);
            let mut input = &out[..];
            prop_assert_eq!(decode(&mut input, prefix), Ok(value));
            prop_assert!(input.is_empty());
        }
    }
}
