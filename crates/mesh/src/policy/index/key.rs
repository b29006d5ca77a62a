//! Under which values a rule can be filed.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::policy::{Action, Clause, Match, Rule, StringMatch};

/// A value of a positive condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key<'a> {
    Principal(Text<'a>),
    Namespace(Text<'a>),
    /// Namespace and ServiceAccount.
    Account(&'a str, &'a str),
    Source(Block),
    Port(u16),
    Destination(Block),
}

/// What a text is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Text<'a> {
    Exact(&'a str),
    Prefix(&'a str),
    Suffix(&'a str),
    Presence,
}

/// A block of addresses of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Block {
    is_v6: bool,
    /// The bits of the first address, from the highest one on.
    first: u128,
    length: u8,
}

/// A kind of conditions, in the order in which they are preferred where nothing else counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Principal,
    Account,
    Namespace,
    Source,
    Port,
    /// Last: every connection to one workload has the same.
    Destination,
}

impl Kind {
    pub(super) const ALL: [Self; 6] =
        [Self::Principal, Self::Account, Self::Namespace, Self::Source, Self::Port, Self::Destination];
}

impl Key<'_> {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Principal(_) => Kind::Principal,
            Self::Namespace(_) => Kind::Namespace,
            Self::Account(..) => Kind::Account,
            Self::Source(_) => Kind::Source,
            Self::Port(_) => Kind::Port,
            Self::Destination(_) => Kind::Destination,
        }
    }
}

/// What has to be so for a rule to match, as far as it can be looked up.
pub(super) enum Filing<'a> {
    /// Nothing makes it match.
    Never,
    /// Nothing that can be looked up.
    Anywhere,
    /// One of these.
    Under(Vec<Key<'a>>),
}

/// Under which keys to file a rule. `cost` says how bad a key is, `kinds` which ones may be used.
///
/// Any one of the rule's clauses will do, for all of them must match; of a clause each match that
/// can match needs its keys, for any of them may.
pub(super) fn filing<'a>(
    rule: &'a Rule,
    action: Action,
    kinds: &[Kind],
    cost: impl Fn(&Key<'a>) -> usize,
) -> Filing<'a> {
    let mut best: Option<(usize, Vec<Key<'a>>)> = None;
    for clause in &rule.clauses {
        match of_clause(clause, action, kinds, &cost) {
            Of::Never => return Filing::Never,
            Of::Anything => {}
            Of::Keys(cost, keys) => {
                if best.as_ref().is_none_or(|(least, _)| cost < *least) {
                    best = Some((cost, keys));
                }
            }
        }
    }
    best.map_or(Filing::Anywhere, |(_, keys)| Filing::Under(keys))
}

/// Every key that the rule has of these kinds.
pub(super) fn all_keys<'a>(rule: &'a Rule, kinds: &[Kind]) -> Vec<Key<'a>> {
    let groups = rule.clauses.iter().flat_map(|clause| &clause.any_of);
    groups.flat_map(|group| kinds.iter().flat_map(|kind| keys(group, *kind))).collect()
}

enum Of<'a> {
    Never,
    Anything,
    Keys(usize, Vec<Key<'a>>),
}

fn of_clause<'a>(
    clause: &'a Clause,
    action: Action,
    kinds: &[Kind],
    cost: &impl Fn(&Key<'a>) -> usize,
) -> Of<'a> {
    if clause.any_of.is_empty() {
        return Of::Anything;
    }
    let mut all = Vec::new();
    let mut highest = None;
    for group in &clause.any_of {
        if group.is_empty() {
            match action {
                // It never matches, so whatever else the clause has decides.
                Action::Allow => continue,
                Action::Deny => return Of::Anything,
            }
        }
        let by_kind = kinds.iter().map(|kind| keys(group, *kind)).filter(|keys| !keys.is_empty());
        let worst = |keys: &Vec<Key<'a>>| keys.iter().map(cost).max();
        let Some(keys) = by_kind.min_by_key(worst) else { return Of::Anything };
        highest = highest.max(worst(&keys));
        all.extend(keys);
    }
    highest.map_or(Of::Never, |cost| Of::Keys(cost, all))
}

/// The values of one kind of condition. None of it: the kind is not asked about.
fn keys(group: &Match, kind: Kind) -> Vec<Key<'_>> {
    match kind {
        Kind::Principal => group.principals.iter().map(|want| Key::Principal(text(want))).collect(),
        Kind::Namespace => group.namespaces.iter().map(|want| Key::Namespace(text(want))).collect(),
        Kind::Account => group
            .service_accounts
            .iter()
            .map(|want| Key::Account(&want.namespace, &want.service_account))
            .collect(),
        Kind::Source => group.source_ips.iter().map(|net| Key::Source(Block::of(net))).collect(),
        Kind::Port => group.destination_ports.iter().map(|port| Key::Port(*port)).collect(),
        Kind::Destination => {
            group.destination_ips.iter().map(|net| Key::Destination(Block::of(net))).collect()
        }
    }
}

fn text(want: &StringMatch) -> Text<'_> {
    match want {
        StringMatch::Exact(whole) => Text::Exact(whole),
        StringMatch::Prefix(prefix) => Text::Prefix(prefix),
        StringMatch::Suffix(suffix) => Text::Suffix(suffix),
        StringMatch::Presence => Text::Presence,
    }
}

impl Block {
    /// A block inside `::ffff:0:0/96` is the IPv4 block it stands for, as in `matching`.
    fn of(net: &IpNet) -> Self {
        match net.trunc() {
            IpNet::V4(v4) => Self::v4(v4.addr().to_bits(), v4.prefix_len()),
            IpNet::V6(v6) => match (v6.addr().to_ipv4_mapped(), v6.prefix_len().checked_sub(96)) {
                (Some(ip), Some(length)) => Self::v4(ip.to_bits(), length),
                (Some(_) | None, _) => {
                    Self { is_v6: true, first: v6.addr().to_bits(), length: v6.prefix_len() }
                }
            },
        }
    }

    /// The block of one address, which is canonical.
    pub(super) fn at(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::v4(ip.to_bits(), 32),
            IpAddr::V6(ip) => Self { is_v6: true, first: ip.to_bits(), length: 128 },
        }
    }

    /// Whether every address of `other` is in this block.
    pub(super) fn covers(&self, other: &Self) -> bool {
        // A block of length 0 has all addresses of its family.
        let differing = (self.first ^ other.first).checked_shr(128 - u32::from(self.length)).unwrap_or(0);
        self.is_v6 == other.is_v6 && self.length <= other.length && differing == 0
    }

    fn v4(bits: u32, length: u8) -> Self {
        Self { is_v6: false, first: u128::from(bits) << 96, length }
    }
}
