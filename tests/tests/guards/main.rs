//! Guards on what a request, a stream and a mebibyte cost the tunnel, counted and not timed: they
//! hold on a busy machine and on a slow one.
//!
//! The tunnel without its sockets (`crates/hbone/benches/core`) runs in its release build. A budget
//! is what was counted when it was last set, and a margin. To see what is counted now, and to renew
//! the budgets after a change that is meant:
//!
//! ```text
//! cargo test -p ambit-tests --test guards -- --nocapture
//! ```

mod core;
mod profile;

use core::Kind;

/// What one unit of a kind of work may cost.
struct Budget {
    kind: Kind,
    /// Units of the two runs whose difference counts: what a run costs beside its units cancels.
    units: (u64, u64),
    /// Instructions beside those of the cryptography library, which picks its code by the processor.
    /// They vary by five in a hundred with the places that memory has; the budget is an eighth above
    /// the most that was counted.
    instructions: u64,
    /// Calls of the allocator in 100 units. They do not vary.
    allocations_per_100: u64,
    /// Octets asked of the allocator.
    allocated: u64,
}

/// Of both ends together. Counted on x86-64 with Rust 1.95, rustls 0.23 and Debian 12 (2026-11-25):
/// 10,690 to 11,224, 40,094 and 955,846 instructions; of the latter 808,000 copy.
const BUDGETS: [Budget; 3] = [
    Budget {
        kind: Kind::Requests,
        units: (50, 250),
        instructions: 12_600,
        allocations_per_100: 400,
        allocated: 4_176,
    },
    Budget {
        kind: Kind::Streams,
        units: (50, 250),
        instructions: 45_100,
        allocations_per_100: 3_000,
        allocated: 5_301,
    },
    Budget {
        kind: Kind::Bulk,
        units: (1, 5),
        instructions: 1_075_000,
        allocations_per_100: 14_550,
        allocated: 2_099_160,
    },
];

#[test]
fn allocations_stay_within_their_budgets() {
    let counts = core::run(&runs());
    let mut beyond = Vec::new();
    for (budget, [few, many]) in BUDGETS.iter().zip(pairs(&counts)) {
        let units = budget.units.1 - budget.units.0;
        let allocations = many.allocations - few.allocations;
        let allocated = many.allocated - few.allocated;
        let kind = budget.kind.name();
        println!(
            "{kind}: {} allocations in 100, {} octets in each",
            allocations * 100 / units,
            allocated / units
        );
        check(&mut beyond, kind, "allocations in 100", allocations * 100, units, budget.allocations_per_100);
        check(&mut beyond, kind, "allocated octets", allocated, units, budget.allocated);
    }
    assert!(beyond.is_empty(), "{}", beyond.join("\n"));
}

#[test]
fn instructions_stay_within_their_budgets() {
    let profiles = profile::run(&runs());
    let mut beyond = Vec::new();
    for (budget, [few, many]) in BUDGETS.iter().zip(pairs(&profiles)) {
        let units = budget.units.1 - budget.units.0;
        let ours = many.ours() - few.ours();
        let cryptography = many.cryptography() - few.cryptography();
        let kind = budget.kind.name();
        println!(
            "{kind}: {} instructions in each, and {} of cryptography",
            ours / units,
            cryptography / units
        );
        // Every octet is encrypted and decrypted. Were it not seen, nothing would be told apart.
        assert!(cryptography > 0, "{kind}: no instruction of the cryptography library was seen");
        if !check(&mut beyond, kind, "instructions", ours, units, budget.instructions) {
            beyond.push(format!("the functions with most of them:\n{}", many.top(12)));
        }
    }
    assert!(beyond.is_empty(), "{}", beyond.join("\n"));
}

/// Notes what is beyond its budget.
fn check(beyond: &mut Vec<String>, kind: &str, what: &str, counted: u64, units: u64, budget: u64) -> bool {
    assert!(counted > 0, "{kind}: no {what} were counted, which cannot be");
    let within = counted <= budget * units;
    if !within {
        let each = counted as f64 / units as f64;
        beyond.push(format!("{kind}: {each:.1} {what}, and the budget is {budget}"));
    }
    within
}

fn runs() -> Vec<(Kind, u64)> {
    BUDGETS
        .iter()
        .flat_map(|budget| [budget.units.0, budget.units.1].map(|units| (budget.kind, units)))
        .collect()
}

fn pairs<T>(counts: &[T]) -> &[[T; 2]] {
    let (pairs, rest) = counts.as_chunks::<2>();
    assert!(pairs.len() == BUDGETS.len() && rest.is_empty(), "not every run was counted");
    pairs
}
