//! The Huffman code of RFC 7541 Appendix B: decoding only, since our encoder writes plain octets.
//!
//! The code is canonical (codes of one length are consecutive, in the order of their symbols), so
//! the lengths alone define it and the tables are computed from them at compile time.

use super::HpackError;

/// RFC 7541 Appendix B: the length of each symbol's code in bits; the last symbol is EOS.
const LENGTHS: [u8; SYMBOL_COUNT] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28,
    28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6,
    6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7,
    8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7,
    15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24,
    23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23,
    23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26,
    26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20,
    21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27,
    27, 27, 26, 30,
];

const SYMBOL_COUNT: usize = 257;
const EOS: u16 = 256;
const MAX_LENGTH: usize = 30;

/// Appends what `input` stands for to `out`.
pub(super) fn decode(input: &[u8], out: &mut Vec<u8>) -> Result<(), HpackError> {
    let mut octets = input.iter();
    let mut bits = 0_u64;
    let mut available = 0_u32;
    loop {
        while available <= 56
            && let Some(octet) = octets.next()
        {
            bits = bits << 8 | u64::from(*octet);
            available += 8;
        }
        if available == 0 {
            return Ok(());
        }
        let window = window(bits, available);
        let (symbol, length) = first_symbol(window);
        if u32::from(length) > available {
            return padding(window, available);
        }
        // RFC 7541 §5.2: "A Huffman-encoded string literal containing the EOS symbol MUST be
        // treated as a decoding error."
        out.push(u8::try_from(symbol).map_err(|_| HpackError::EosInString)?);
        available -= u32::from(length);
    }
}

/// The next 32 bits, filled up with ones where the string ends: ones are a prefix of EOS only, so
/// that they never complete the code of another symbol.
fn window(bits: u64, available: u32) -> u32 {
    match available.checked_sub(32) {
        Some(behind) => (bits >> behind) as u32,
        None => (bits << (32 - available)) as u32 | u32::MAX >> available,
    }
}

/// RFC 7541 §5.2: the string is padded with the most significant bits of EOS, fewer than eight;
/// anything else is a decoding error.
fn padding(window: u32, available: u32) -> Result<(), HpackError> {
    if window == u32::MAX && available < 8 { Ok(()) } else { Err(HpackError::HuffmanPadding) }
}

/// The symbol whose code `window` begins with, and the length of that code.
fn first_symbol(window: u32) -> (u16, u8) {
    let (symbol, length) = SHORT[(window >> 24) as usize];
    if length != 0 {
        return (symbol, length);
    }
    for length in 9..MAX_LENGTH {
        let beyond = (window >> (32 - length)).wrapping_sub(FIRST_CODE[length]);
        if beyond < COUNT[length] {
            return (SYMBOLS[(OFFSET[length] + beyond) as usize], length as u8);
        }
    }
    let last = (window >> (32 - MAX_LENGTH)) - FIRST_CODE[MAX_LENGTH];
    (SYMBOLS[(OFFSET[MAX_LENGTH] + last) as usize], MAX_LENGTH as u8)
}

/// How many symbols have a code of this length.
const COUNT: [u32; MAX_LENGTH + 1] = {
    let mut count = [0; MAX_LENGTH + 1];
    let mut symbol = 0;
    while symbol < SYMBOL_COUNT {
        count[LENGTHS[symbol] as usize] += 1;
        symbol += 1;
    }
    count
};

/// The lowest code of each length.
const FIRST_CODE: [u32; MAX_LENGTH + 1] = {
    let mut first = [0; MAX_LENGTH + 1];
    let mut length = 1;
    while length <= MAX_LENGTH {
        first[length] = (first[length - 1] + COUNT[length - 1]) << 1;
        length += 1;
    }
    first
};

/// Where the symbols of each length begin in `SYMBOLS`.
const OFFSET: [u32; MAX_LENGTH + 1] = {
    let mut offset = [0; MAX_LENGTH + 1];
    let mut length = 1;
    while length <= MAX_LENGTH {
        offset[length] = offset[length - 1] + COUNT[length - 1];
        length += 1;
    }
    offset
};

/// All symbols, by length of code and then by value.
const SYMBOLS: [u16; SYMBOL_COUNT] = {
    let mut symbols = [EOS; SYMBOL_COUNT];
    let mut next = OFFSET;
    let mut symbol = 0;
    while symbol < SYMBOL_COUNT {
        let length = LENGTHS[symbol] as usize;
        symbols[next[length] as usize] = symbol as u16;
        next[length] += 1;
        symbol += 1;
    }
    symbols
};

/// For each octet: the symbol whose code (of at most eight bits) it begins with, and the length of
/// that code; length 0 where the code is longer.
const SHORT: [(u16, u8); 256] = {
    let mut short = [(0, 0); 256];
    let mut length = 1;
    while length <= 8 {
        let mut nth = 0;
        while nth < COUNT[length] {
            let spread = 1 << (8 - length);
            let from = (FIRST_CODE[length] + nth) as usize * spread;
            let mut at = from;
            while at < from + spread {
                short[at] = (SYMBOLS[(OFFSET[length] + nth) as usize], length as u8);
                at += 1;
            }
            nth += 1;
        }
        length += 1;
    }
    short
};

#[cfg(test)]
mod tests;
