//! The function of the fuzz target, on whatever octets the suite's own generator makes.

#[path = "../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "it is the library of the fuzz targets")]
mod harness;

use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn an_explanation_is_what_happens(data in vec(any::<u8>(), 0..120)) {
        harness::explained(&data);
    }
}
