//! The function of the fuzz target, on heads that are nearly right.

#[path = "../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "it is the library of the fuzz targets")]
mod harness;

use proptest::collection::vec;
use proptest::prelude::*;

/// Pieces of heads, of which many are wrong somewhere.
const PIECES: [&str; 28] = [
    "GET",
    "POST",
    " ",
    "  ",
    "/",
    "/a?b",
    "http://web/x",
    "http://web",
    "*",
    "HTTP/1.1",
    "HTTP/1.0",
    "\r\n",
    "\n",
    "\r",
    "host: web",
    "Host:web",
    "host: other",
    "content-length: 5",
    "content-length: +5",
    "transfer-encoding: chunked",
    "connection: close, x-a",
    "x: 1",
    "x : 1",
    " folded",
    "\0",
    "é",
    ":",
    "\t",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn heads_of_pieces_are_read_alike(pieces in vec(proptest::sample::select(&PIECES[..]), 0..16)) {
        harness::head(pieces.concat().as_bytes());
    }

    #[test]
    fn heads_that_are_nearly_right_are_read_alike(
        method in "(GET|POST|OPTIONS|P-T)",
        target in "(/[a-z%?=&]{0,8}|http://web(/|\\?)?[a-z]{0,3}|\\*)",
        version in "HTTP/1\\.[01]",
        fields in vec("(x-[a-z]{1,3}|content-length|transfer-encoding|connection|expect|upgrade): ?(5|chunked|close|x| )?", 0..5),
        flip in proptest::option::weighted(0.3, (any::<prop::sample::Index>(), any::<u8>())),
    ) {
        let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
        let mut octets = format!("{method} {target} {version}\r\nhost: web\r\n{fields}\r\n").into_bytes();
        if let Some((at, octet)) = flip {
            let at = at.index(octets.len());
            octets[at] = octet;
        }
        harness::head(&octets);
    }

    #[test]
    fn whatever_comes_is_read_alike(octets in vec(any::<u8>(), 0..200)) {
        harness::head(&octets);
    }
}
