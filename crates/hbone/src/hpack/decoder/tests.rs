use proptest::prelude::*;

use super::*;
use crate::hpack::Encoder;

fn octets(hex: &str) -> Vec<u8> {
    let digits: Vec<char> = hex.chars().filter(|digit| !digit.is_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap()).collect()
}

fn decoded(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<(String, String)>, HpackError> {
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    let mut fields = Vec::new();
    decoder.decode(block, |name, value| fields.push((text(name), text(value))))?;
    Ok(fields)
}

fn fields(text: &[(&str, &str)]) -> Vec<(String, String)> {
    text.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

const REQUESTS: [&[(&str, &str)]; 3] = [
    &[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")],
    &[
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "www.example.com"),
        ("cache-control", "no-cache"),
    ],
    &[
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/index.html"),
        (":authority", "www.example.com"),
        ("custom-key", "custom-value"),
    ],
];

const RESPONSES: [&[(&str, &str)]; 3] = [
    &[
        (":status", "302"),
        ("cache-control", "private"),
        ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
        ("location", "https://www.example.com"),
    ],
    &[
        (":status", "307"),
        ("cache-control", "private"),
        ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
        ("location", "https://www.example.com"),
    ],
    &[
        (":status", "200"),
        ("cache-control", "private"),
        ("date", "Mon, 21 Oct 2013 20:13:22 GMT"),
        ("location", "https://www.example.com"),
        ("content-encoding", "gzip"),
        ("set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"),
    ],
];

/// Blocks of one connection, with the size of the table behind each.
type Sequence = [(&'static str, usize); 3];

const C_3: Sequence = [
    ("8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d", 57),
    ("8286 84be 5808 6e6f 2d63 6163 6865", 110),
    ("8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65", 164),
];

const C_4: Sequence = [
    ("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", 57),
    ("8286 84be 5886 a8eb 1064 9cbf", 110),
    ("8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf", 164),
];

const C_5: Sequence = [
    (
        "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133
         3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        222,
    ),
    ("4803 3330 37c1 c0bf", 222),
    (
        "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a
         6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d
         6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
        215,
    ),
];

const C_6: Sequence = [
    (
        "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d
         29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
        222,
    ),
    ("4883 640e ffc1 c0bf", 222),
    (
        "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d
         d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106
         3d50 07",
        215,
    ),
];

#[test]
fn the_sequences_of_rfc_7541_c_3_to_c_6_are_read() {
    let cases = [
        ("C.3", 4096, C_3, REQUESTS),
        ("C.4", 4096, C_4, REQUESTS),
        ("C.5", 256, C_5, RESPONSES),
        ("C.6", 256, C_6, RESPONSES),
    ];
    for (section, table, blocks, expected) in cases {
        let mut decoder = Decoder::new(table);
        for ((block, size), expected) in blocks.iter().zip(expected) {
            assert_eq!(decoded(&mut decoder, &octets(block)), Ok(fields(expected)), "{section}");
            assert_eq!(decoder.table_size(), *size, "{section}");
        }
    }
}

#[test]
fn broken_blocks_are_errors() {
    let cases: [(&str, &str, HpackError); 9] = [
        ("index 0", "80", HpackError::UnknownIndex { index: 0 }),
        ("an index beyond both tables", "be", HpackError::UnknownIndex { index: 62 }),
        ("a name beyond both tables", "7f00 0161", HpackError::UnknownIndex { index: 63 }),
        ("an integer cut off", "ff", HpackError::Truncated),
        ("a string cut off", "0003 6162", HpackError::Truncated),
        ("a value missing", "0001 61", HpackError::Truncated),
        ("a length without end", "007f ffff ffff ffff ffff", HpackError::IntegerTooLarge),
        ("an update behind a field", "8220", HpackError::LateTableUpdate),
        ("an update beyond the limit", "3fe2 1f", HpackError::TableTooLarge { size: 4097, limit: 4096 }),
    ];
    for (what, block, error) in cases {
        assert_eq!(decoded(&mut Decoder::new(4096), &octets(block)), Err(error), "{what}");
    }
}

#[test]
fn a_lowered_table_has_to_be_acknowledged_by_the_next_block() {
    let mut decoder = Decoder::new(4096);
    decoded(&mut decoder, &octets(C_3[0].0)).unwrap();
    decoder.set_limit(0);
    assert_eq!(decoded(&mut decoder, &octets("82")), Err(HpackError::MissingTableUpdate));
    assert_eq!(decoded(&mut decoder, &octets("2082")), Ok(fields(&[(":method", "GET")])));
    assert_eq!(decoder.table_size(), 0);
    assert_eq!(decoded(&mut decoder, &octets("82")), Ok(fields(&[(":method", "GET")])));
}

#[test]
fn a_name_may_come_from_the_entry_that_its_insertion_evicts() {
    // One entry of 34 octets fits; the second takes its name from it.
    let mut decoder = Decoder::new(40);
    let block = octets("4001 6101 31 7e01 32 be");
    let expected = fields(&[("a", "1"), ("a", "2"), ("a", "2")]);
    assert_eq!(decoded(&mut decoder, &block), Ok(expected));
}

proptest! {
    #[test]
    fn what_the_encoder_writes_is_read(
        blocks in proptest::collection::vec(
            proptest::collection::vec(("[a-z0-9-]{1,20}", "[ -~]{0,300}"), 0..8),
            1..8,
        ),
    ) {
        let mut encoder = Encoder::default();
        let mut decoder = Decoder::new(0);
        for fields in blocks {
            let mut out = Vec::new();
            let mut block = encoder.begin(&mut out);
            fields.iter().for_each(|(name, value)| block.field(name.as_bytes(), value.as_bytes()));
            prop_assert_eq!(decoded(&mut decoder, &out).unwrap(), fields);
        }
    }

    #[test]
    fn no_octets_make_the_table_larger_than_its_limit(
        blocks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 1..8),
        limit in 0_u32..300,
    ) {
        let mut decoder = Decoder::new(limit);
        for block in blocks {
            let read = decoder.decode(&block, |_, _| {});
            prop_assert!(decoder.table_size() <= limit as usize);
            if read.is_err() {
                break;
            }
        }
    }
}
