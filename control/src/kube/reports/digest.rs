//! Digests of what is to be acknowledged, by which replicas see whether they serve the same. Pure.
//!
//! They are in parts by name, so that while policies change only what is near a change cannot be
//! compared. Neither the order of resources nor anything of one process goes into them.

use std::collections::BTreeMap;

use ambit_xds::resources::{Audience, Collection};
use aws_lc_rs::digest::{Context, SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// How many parts there are.
pub const PARTS: usize = 256;

/// Octets of a part's digest: enough that no two contents look the same by accident.
const OCTETS: usize = 8;

/// A digest of each part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digests(Vec<[u8; OCTETS]>);

/// A set of parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts([u8; PARTS / 8]);

/// The part that a resource of this name is in.
pub fn part_of(name: &str) -> usize {
    usize::from(digest(&SHA256, name.as_bytes()).as_ref()[0])
}

impl Digests {
    /// The digests of the names and versions of all resources, and of whom they are for.
    pub fn of(resources: &Collection) -> Self {
        let mut parts: Vec<BTreeMap<&str, Content<'_>>> = vec![BTreeMap::new(); PARTS];
        for resource in resources.iter() {
            parts[part_of(resource.name())]
                .insert(resource.name(), (resource.version(), resource.audience()));
        }
        Self(parts.iter().map(of_part).collect())
    }

    /// Whether both have the same resources in a part.
    pub fn agree(&self, other: &Self, part: usize) -> bool {
        matches!((self.0.get(part), other.0.get(part)), (Some(one), Some(other)) if one == other)
    }

    /// As reports carry them.
    pub fn to_text(&self) -> String {
        STANDARD.encode(self.0.concat())
    }

    /// As a report has them; from one that is malformed none, which agree with nothing.
    pub fn from_text(text: &str) -> Self {
        let octets = STANDARD.decode(text).unwrap_or_default();
        Self(octets.as_chunks::<OCTETS>().0.to_vec())
    }
}

impl Parts {
    /// Adds a part.
    pub fn insert(&mut self, part: usize) {
        self.0[part / 8] |= 1 << (part % 8);
    }

    /// Whether it is in the set.
    pub fn contains(&self, part: usize) -> bool {
        self.0[part / 8] & (1 << (part % 8)) != 0
    }

    /// As reports carry it: empty where the set is.
    pub fn to_text(&self) -> String {
        if *self == Self::default() { String::new() } else { STANDARD.encode(self.0) }
    }

    /// As a report has it; from one that is malformed all parts, which is the more careful reading.
    pub fn from_text(text: &str) -> Self {
        if text.is_empty() {
            return Self::default();
        }
        let octets = STANDARD.decode(text).ok().and_then(|octets| octets.try_into().ok());
        Self(octets.unwrap_or([u8::MAX; PARTS / 8]))
    }
}

/// A name has no zero octet, so that no two parts read the same.
/// The version, and whom it is for.
type Content<'a> = (&'a str, &'a Audience);

fn of_part(resources: &BTreeMap<&str, Content<'_>>) -> [u8; OCTETS] {
    let mut context = Context::new(&SHA256);
    let mut add = |text: &str| {
        context.update(text.as_bytes());
        context.update(&[0]);
    };
    for (name, (version, audience)) in resources {
        add(name);
        add(version);
        match audience {
            Audience::Everybody => {}
            Audience::Waypoints(waypoints) => {
                add("waypoints");
                waypoints.iter().for_each(|waypoint| add(&waypoint.to_string()));
                add("");
            }
        }
    }
    let mut octets = [0; OCTETS];
    octets.copy_from_slice(&context.finish().as_ref()[..OCTETS]);
    octets
}

#[cfg(test)]
mod tests {
    use ambit_mesh::policy::{Action, AuthorizationPolicy, PolicyName, PolicyScope};
    use ambit_xds::ResourceType;
    use ambit_xds::resources::{Resource, Resources};

    use super::*;

    fn policies(names: impl Iterator<Item = (String, Action)>) -> Digests {
        let policy = |(name, action): (String, Action)| {
            Resource::policy(&AuthorizationPolicy {
                name: PolicyName { namespace: "shop".into(), name: name.into() },
                scope: PolicyScope::Namespace,
                action,
                rules: Vec::new(),
                dry_run: false,
            })
        };
        let resources: Resources = names.map(policy).collect();
        Digests::of(resources.of_type(ResourceType::Authorization))
    }

    #[test]
    fn a_change_is_seen_in_its_own_part_alone() {
        let deny = |index: usize| (format!("p{index}"), Action::Deny);
        let one = policies((0..2_000).map(deny));
        let same = policies((0..2_000).rev().map(deny));
        assert_eq!(one, same, "the order does not matter");
        let other = policies(
            (0..2_000).map(|index| if index == 7 { ("p7".to_owned(), Action::Allow) } else { deny(index) }),
        );
        let differing: Vec<usize> = (0..PARTS).filter(|&part| !one.agree(&other, part)).collect();
        assert_eq!(differing, [part_of("shop/p7")]);
    }

    #[test]
    fn digests_and_parts_survive_being_written() {
        let digests = policies((0..300).map(|index| (format!("p{index}"), Action::Deny)));
        assert_eq!(Digests::from_text(&digests.to_text()), digests);
        let mut parts = Parts::default();
        assert_eq!(parts.to_text(), "");
        parts.insert(3);
        parts.insert(255);
        let read = Parts::from_text(&parts.to_text());
        let contained: Vec<usize> = (0..PARTS).filter(|&part| read.contains(part)).collect();
        assert_eq!(contained, [3, 255]);
    }

    #[test]
    fn what_is_malformed_claims_nothing() {
        let digests = policies([].into_iter());
        for text in ["", "?", "AAAA"] {
            let malformed = Digests::from_text(text);
            assert!((0..PARTS).all(|part| !malformed.agree(&digests, part)), "{text:?}");
        }
        for text in ["?", "AAAA"] {
            assert!((0..PARTS).all(|part| Parts::from_text(text).contains(part)), "{text:?}");
        }
    }
}
