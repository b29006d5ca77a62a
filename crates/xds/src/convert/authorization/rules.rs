//! Rules and clauses, and what conditions that cannot be enforced do to them.
//!
//! DESIGN 6.1: "An ALLOW rule that cannot be enforced where it lands never matches; a DENY rule
//! matches on its enforceable remainder, and denies all if none is left." So an unknown condition
//! is taken for false under ALLOW and for true under DENY, at the level where it stands.

use ambit_mesh::policy::{Action, Clause, Match, Rule};
use prost::Message;

use super::InvalidAuthorization;
use super::matches;

/// Reads the rules of a policy. Rules that can never match are left out: a policy without rules
/// never matches either.
pub(super) fn rules(encoded: &[Vec<u8>], action: Action) -> Result<Vec<Rule>, InvalidAuthorization> {
    encoded.iter().filter_map(|octets| rule(octets, action).transpose()).collect()
}

/// Reads one rule; `None` when it never matches. All of its clauses must match.
fn rule(octets: &[u8], action: Action) -> Result<Option<Rule>, InvalidAuthorization> {
    let from = EncodedRule::decode(octets)?;
    if has_unknown_fields(&from, octets) && action == Action::Allow {
        return Ok(None);
    }
    let mut clauses = Vec::with_capacity(from.clauses.len());
    for octets in &from.clauses {
        match clause(octets, action)? {
            Known::Always => {}
            Known::Never => return Ok(None),
            Known::When(clause) => clauses.push(clause),
        }
    }
    Ok(Some(Rule { clauses }))
}

/// Reads one clause. Any of its matches may match.
fn clause(octets: &[u8], action: Action) -> Result<Known<Clause>, InvalidAuthorization> {
    let from = EncodedClause::decode(octets)?;
    if has_unknown_fields(&from, octets) {
        return Ok(Known::unenforceable(action));
    }
    if from.matches.is_empty() {
        return Ok(Known::Always);
    }
    let mut any_of = Vec::with_capacity(from.matches.len());
    for octets in &from.matches {
        match matches::read(octets, action)? {
            Known::Always => return Ok(Known::Always),
            Known::Never => {}
            Known::When(condition) => any_of.push(condition),
        }
    }
    // An empty clause would be true, but none of its matches can be.
    Ok(if any_of.is_empty() { Known::Never } else { Known::When(Clause { any_of }) })
}

/// What is known of a part of a rule before any connection is seen.
pub(super) enum Known<T> {
    /// It matches every connection.
    Always,
    /// It matches none.
    Never,
    /// It depends on the connection.
    When(T),
}

impl Known<Match> {
    /// Reads off what is left of a match after unenforceable conditions were taken out of it.
    pub(super) fn remainder(condition: Match) -> Self {
        // The mesh skips a match that has no conditions, but here they were met, not absent.
        if condition.is_empty() { Self::Always } else { Self::When(condition) }
    }
}

impl<T> Known<T> {
    /// A part that cannot be enforced at all.
    pub(super) fn unenforceable(action: Action) -> Self {
        match action {
            Action::Allow => Self::Never,
            Action::Deny => Self::Always,
        }
    }
}

/// Whether the octets hold more than was decoded from them.
///
/// Decoding drops unknown fields, so the message is then shorter. An encoder that does not use the
/// shortest form is taken for one with unknown fields, which errs to the closed side.
pub(super) fn has_unknown_fields(decoded: &impl Message, octets: &[u8]) -> bool {
    decoded.encoded_len() != octets.len()
}

/// The message with its clauses still encoded.
#[derive(Clone, PartialEq, Message)]
struct EncodedRule {
    #[prost(bytes = "vec", repeated, tag = "1")]
    clauses: Vec<Vec<u8>>,
}

/// The message with its matches still encoded.
#[derive(Clone, PartialEq, Message)]
struct EncodedClause {
    #[prost(bytes = "vec", repeated, tag = "2")]
    matches: Vec<Vec<u8>>,
}
