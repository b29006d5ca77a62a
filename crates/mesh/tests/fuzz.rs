//! The functions of the fuzz targets, on whatever octets the suite's own generator makes.

#[path = "../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "it is the library of the fuzz targets")]
mod harness;

use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn paths_keep_their_meaning(target in "/?([a-c./;%?#\\\\é ]|%[0-9a-fA-F]{2}){0,16}") {
        harness::path(&target);
    }

    #[test]
    fn decisions_are_consistent(data in vec(any::<u8>(), 0..400)) {
        harness::request(&data);
    }
}
