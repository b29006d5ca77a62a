//! Certificate chains that a verifier has found good, so that the next handshake with the same peer
//! need not check their signatures again.
//!
//! A chain's signatures and names say the same whenever they are read; only time passes, and that is
//! looked at every time. The store belongs to one verifier and thus to one set of roots. That the peer
//! holds the leaf's key is proved in every handshake, and is not this module's.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::{CertificateDer, UnixTime};

use crate::certificate::validity;
use crate::spiffe;

/// Chains that were verified, and when each is valid.
#[derive(Default)]
pub(super) struct VerifiedChains {
    windows: Mutex<HashMap<Box<[u8]>, Window>>,
}

/// When all certificates of a chain are valid.
#[derive(Clone, Copy)]
struct Window {
    not_before: SystemTime,
    not_after: SystemTime,
}

impl VerifiedChains {
    /// Whether exactly this chain was found good before, and `now` is within its validity.
    pub(super) fn contains(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> bool {
        let now = UNIX_EPOCH + Duration::from_secs(now.as_secs());
        let windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let window = windows.get(&*key(leaf, intermediates));
        window.is_some_and(|window| window.not_before <= now && now <= window.not_after)
    }

    /// Notes a chain that was found good. One that cannot be read is checked anew each time.
    pub(super) fn insert(&self, leaf: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) {
        let Some(window) = window(leaf, intermediates) else { return };
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        if windows.len() >= MAX_CHAINS {
            windows.clear();
        }
        windows.insert(key(leaf, intermediates), window);
    }
}

impl fmt::Debug for VerifiedChains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        f.debug_struct("VerifiedChains").field("chains", &windows.len()).finish()
    }
}

/// The octets of all certificates, each behind its length, so that no two chains read the same.
fn key(leaf: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> Box<[u8]> {
    let certificates = || std::iter::once(leaf).chain(intermediates);
    let octets = certificates().map(|certificate| certificate.len() + size_of::<usize>()).sum();
    let mut key = Vec::with_capacity(octets);
    for certificate in certificates() {
        key.extend_from_slice(&certificate.len().to_ne_bytes());
        key.extend_from_slice(certificate);
    }
    key.into_boxed_slice()
}

fn window(leaf: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> Option<Window> {
    let (not_before, not_after) = validity(&spiffe::parse(leaf).ok()?);
    let mut window = Window { not_before, not_after };
    for certificate in intermediates {
        let (not_before, not_after) = validity(&spiffe::parse(certificate).ok()?);
        window.not_before = window.not_before.max(not_before);
        window.not_after = window.not_after.min(not_after);
    }
    Some(window)
}

/// Chains that one workload's verifier keeps, of one to two kilobytes each: the peers that it meets
/// again. Beyond it all are forgotten and verified once more.
const MAX_CHAINS: usize = 128;

#[cfg(test)]
mod tests {
    use rustls::client::danger::ServerCertVerifier;
    use rustls::pki_types::ServerName;

    use super::super::verifiers::MeshServerVerifier;
    use super::*;
    use crate::certificate::root_store;
    use crate::testing::{Authority, HOUR, MINUTE, cart, web};

    fn unix(time: SystemTime) -> UnixTime {
        UnixTime::since_unix_epoch(time.duration_since(UNIX_EPOCH).unwrap())
    }

    #[test]
    fn a_chain_that_was_verified_still_expires() {
        let (authority, now) = (Authority::root("root"), SystemTime::now());
        let certificate = authority.certificate(&cart(), now);
        let (leaf, intermediates) = certificate.chain().split_first().unwrap();
        let verifier = MeshServerVerifier::new(root_store(certificate.roots()).unwrap());
        let anybody = ServerName::try_from("10.0.0.1").unwrap();
        let verify = |at| verifier.verify_server_cert(leaf, intermediates, &anybody, &[], unix(at));
        for (at, valid) in [(now, true), (now, true), (now + 2 * HOUR, false), (now - 2 * MINUTE, false)] {
            assert_eq!(verify(at).is_ok(), valid, "{at:?} against {now:?}");
        }
    }

    #[test]
    fn a_chain_is_known_by_all_of_its_octets() {
        let (authority, now) = (Authority::root("root"), SystemTime::now());
        let [cart, web] = [cart(), web()].map(|id| authority.certificate(&id, now).chain()[0].clone());
        let known = VerifiedChains::default();
        known.insert(&cart, &[]);
        assert!(known.contains(&cart, &[], unix(now)));
        assert!(!known.contains(&web, &[], unix(now)), "another leaf of the same issuer");
        assert!(
            !known.contains(&cart, std::slice::from_ref(&web), unix(now)),
            "the same leaf, another chain"
        );
        let mut forged = cart.to_vec();
        *forged.last_mut().unwrap() ^= 1;
        assert!(!known.contains(&forged.into(), &[], unix(now)), "another signature");
    }

    #[test]
    fn no_more_are_kept_than_the_limit() {
        let (authority, now) = (Authority::root("root"), SystemTime::now());
        let leaf = authority.certificate(&cart(), now).chain()[0].clone();
        let known = VerifiedChains::default();
        for count in 0..=MAX_CHAINS {
            known.insert(&leaf, &vec![leaf.clone(); count]);
        }
        assert!(known.windows.lock().unwrap().len() <= MAX_CHAINS);
    }
}
