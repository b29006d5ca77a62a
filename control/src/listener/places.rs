//! How many connections one address may have, and how often it may open one. Handshakes cost us more
//! than they cost the client.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::limits::buckets::{Buckets, Rate};

/// Connections of one address. An agent has two, its successor two more; several agents may share an
/// address behind a gateway.
const MOST: usize = 256;

/// Connections that one address may open: enough for those agents to come back all at once.
const OPENED: Rate = Rate { burst: 256, every: Duration::from_millis(20) };

/// The places. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Places(Arc<Mutex<Taken>>);

#[derive(Debug)]
struct Taken {
    by_address: HashMap<IpAddr, usize>,
    opened: Buckets<IpAddr>,
}

/// The place of one connection, given up when dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    address: IpAddr,
}

impl Default for Places {
    fn default() -> Self {
        let taken = Taken { by_address: HashMap::new(), opened: Buckets::new(OPENED) };
        Self(Arc::new(Mutex::new(taken)))
    }
}

impl Places {
    /// A place for one more connection of `address`, unless it has too many.
    pub(super) fn take(&self, address: IpAddr) -> Option<Place> {
        let address = address.to_canonical();
        let mut taken = self.lock();
        let has = taken.by_address.get(&address).copied().unwrap_or(0);
        if has >= MOST || !taken.opened.admit(&address, Instant::now()) {
            return None;
        }
        taken.by_address.insert(address, has + 1);
        drop(taken);
        Some(Place { places: self.clone(), address })
    }

    /// A panic elsewhere leaves whole values behind: every step ends before the next begins.
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        match taken.by_address.get_mut(&self.address) {
            Some(has) if *has > 1 => *has -= 1,
            Some(_) | None => drop(taken.by_address.remove(&self.address)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_connections_and_no_more() {
        let places = Places::default();
        let (one, mapped, other) =
            (IpAddr::from([10, 0, 0, 1]), "::ffff:10.0.0.1".parse().unwrap(), IpAddr::from([10, 0, 0, 2]));
        let mut held: Vec<Place> = (0..MOST).map_while(|_| places.take(one)).collect();
        assert_eq!(held.len(), MOST);
        assert!(places.take(one).is_none() && places.take(mapped).is_none());
        assert!(places.take(other).is_some(), "another address's are counted apart");
        held.clear();
        assert!(places.lock().by_address.is_empty());
    }
}
