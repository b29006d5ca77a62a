//! The manager under paused time, with an authority of the tests' own.

use std::time::{Duration, SystemTime};

use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::*;
use crate::testing::{Authority, Leaf, MINUTE, cart, id, web};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Refuses to issue.
#[derive(Debug, thiserror::Error)]
#[error("the CA is away")]
struct Away;

/// An issuer under the test's control.
#[derive(Clone)]
struct TestIssuer(Arc<TestCa>);

struct TestCa {
    authority: Authority,
    clock: WallClock,
    life: Duration,
    /// How long an answer takes.
    takes: Duration,
    reachable: watch::Sender<bool>,
    /// Every attempt: when it began, since the start, and for whom.
    attempts: watch::Sender<Vec<(Duration, SpiffeId)>>,
    started: Instant,
    running: watch::Sender<usize>,
    most_running: Mutex<usize>,
}

impl TestIssuer {
    fn new(life: Duration, takes: Duration) -> Self {
        let (started, began) = (Instant::now(), SystemTime::now());
        Self(Arc::new(TestCa {
            authority: Authority::root("root"),
            clock: WallClock::new(move || began + started.elapsed()),
            life,
            takes,
            reachable: watch::Sender::new(true),
            attempts: watch::Sender::default(),
            started,
            running: watch::Sender::default(),
            most_running: Mutex::default(),
        }))
    }

    fn manager(&self, store: Option<CertificateStore>) -> CertificateManager<Self> {
        let config = ManagerConfig { store, clock: self.0.clock.clone(), ..ManagerConfig::default() };
        CertificateManager::new(self.clone(), config)
    }

    fn set_reachable(&self, reachable: bool) {
        self.0.reachable.send_replace(reachable);
    }

    /// When each attempt began, in seconds since the start.
    async fn first_attempts(&self, count: usize) -> Vec<(f64, SpiffeId)> {
        let mut attempts = self.0.attempts.subscribe();
        let attempts = attempts.wait_for(|attempts| attempts.len() >= count).await.unwrap();
        attempts[..count].iter().map(|(at, id)| (at.as_secs_f64(), id.clone())).collect()
    }

    fn attempts_so_far(&self) -> usize {
        self.0.attempts.borrow().len()
    }
}

impl Issuer for TestIssuer {
    type Error = Away;

    async fn issue(&self, id: &SpiffeId) -> Result<WorkloadCertificate, Away> {
        let ca = &*self.0;
        ca.attempts.send_modify(|attempts| attempts.push((ca.started.elapsed(), id.clone())));
        ca.running.send_modify(|running| *running += 1);
        let running = *ca.running.borrow();
        {
            let mut most = lock(&ca.most_running);
            *most = running.max(*most);
        }
        sleep(ca.takes).await;
        ca.running.send_modify(|running| *running -= 1);
        if !*ca.reachable.borrow() {
            return Err(Away);
        }
        let now = ca.clock.now();
        let mut leaf = Leaf::of(id, now);
        leaf.not_after = now + ca.life;
        Ok(ca.authority.certificate_with(id, &leaf, vec![ca.authority.der()], now))
    }
}

type Subscription = watch::Receiver<Option<Arc<TlsIdentity>>>;

async fn certificate(subscription: &mut Subscription) -> Arc<TlsIdentity> {
    subscription.wait_for(Option::is_some).await.unwrap().clone().unwrap()
}

async fn next_certificate(subscription: &mut Subscription, after: &TlsIdentity) -> Arc<TlsIdentity> {
    let newer = |identity: &Option<Arc<TlsIdentity>>| {
        identity.as_ref().is_some_and(|identity| identity.generation > after.generation)
    };
    subscription.wait_for(newer).await.unwrap().clone().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_replaced_at_half_its_life() {
    for life in [MINUTE, DAY] {
        let issuer = TestIssuer::new(life, Duration::ZERO);
        let manager = issuer.manager(None);
        let mut subscription = manager.subscribe(&cart());
        let mut held = certificate(&mut subscription).await;
        assert_eq!(held.id, cart());
        for _ in 0..3 {
            let since = Instant::now();
            let newer = next_certificate(&mut subscription, &held).await;
            let part = since.elapsed().as_secs_f64() / life.as_secs_f64();
            assert!((0.44..0.56).contains(&part), "renewed after {part} of its life");
            assert!(newer.not_after > held.not_after);
            held = newer;
        }
        assert_eq!(issuer.attempts_so_far(), 4, "nothing was asked for needlessly");
    }
}

#[tokio::test(start_paused = true)]
async fn failures_are_repeated_with_growing_pauses() {
    let issuer = TestIssuer::new(DAY, Duration::ZERO);
    issuer.set_reachable(false);
    let manager = issuer.manager(None);
    manager.track(&cart());
    let attempts = issuer.first_attempts(8).await;
    assert!(attempts[0].0 < 0.01, "the first attempt is made at once");
    for (pair, nominal) in attempts.windows(2).zip([1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0]) {
        let pause = pair[1].0 - pair[0].0;
        assert!((nominal * 0.79..nominal * 1.21).contains(&pause), "{pause} s instead of {nominal} s");
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_certificate_serves_until_it_expires_and_the_next_one_follows() {
    let issuer = TestIssuer::new(MINUTE, Duration::ZERO);
    let manager = issuer.manager(None);
    let mut subscription = manager.subscribe(&cart());
    let held = certificate(&mut subscription).await;
    let since = Instant::now();
    issuer.set_reachable(false);

    issuer.first_attempts(4).await;
    assert_eq!(subscription.borrow().as_ref().unwrap().generation, held.generation, "it is kept");
    let [status] = manager.statuses().try_into().unwrap();
    assert_eq!(status.last_error.as_deref(), Some("the CA is away"));
    assert_eq!(status.certificate.unwrap().generation, held.generation);

    subscription.wait_for(Option::is_none).await.unwrap();
    let life = since.elapsed().as_secs_f64();
    assert!((59.0..61.1).contains(&life), "withdrawn after {life} s");
    let [status] = manager.statuses().try_into().unwrap();
    assert_eq!(status.certificate, None);

    issuer.set_reachable(true);
    let newer = next_certificate(&mut subscription, &held).await;
    let [status] = manager.statuses().try_into().unwrap();
    assert_eq!(status.last_error, None);
    assert_eq!(status.certificate.unwrap().generation, newer.generation);
}

#[tokio::test(start_paused = true)]
async fn at_most_eight_requests_run_and_those_waited_for_go_first() {
    let issuer = TestIssuer::new(DAY, Duration::from_secs(1));
    let manager = issuer.manager(None);
    let ids: Vec<SpiffeId> =
        (0..100).map(|n| id(&format!("spiffe://cluster.local/ns/shop/sa/s{n:03}"))).collect();
    ids.iter().for_each(|id| manager.track(id));
    // The first eight are under way when somebody comes to wait for one that is far back.
    issuer.first_attempts(8).await;
    let mut awaited = manager.subscribe(&ids[90]);
    certificate(&mut awaited).await;

    let attempts = issuer.first_attempts(100).await;
    let position = attempts.iter().position(|(_, id)| *id == ids[90]).unwrap();
    assert!(position <= 9, "it was number {position}");
    assert_eq!(*lock(&issuer.0.most_running), 8);
    let mut asked: Vec<_> = attempts.into_iter().map(|(_, id)| id).collect();
    asked.sort();
    assert_eq!(asked, ids, "each was asked for once");
}

#[tokio::test(start_paused = true)]
async fn tracking_and_subscribing_again_asks_for_nothing_more() {
    let issuer = TestIssuer::new(DAY, Duration::ZERO);
    let manager = issuer.manager(None);
    manager.track(&cart());
    let mut first = manager.subscribe(&cart());
    let mut second = manager.subscribe(&cart());
    manager.track(&cart());
    assert_eq!(certificate(&mut first).await.generation, certificate(&mut second).await.generation);
    assert_eq!(issuer.attempts_so_far(), 1);
}

#[tokio::test(start_paused = true)]
async fn forgetting_ends_a_request_under_way_and_gives_its_place_to_another() {
    let issuer = TestIssuer::new(DAY, DAY);
    let manager = issuer.manager(None);
    let ids: Vec<SpiffeId> = (0..9).map(|n| id(&format!("spiffe://cluster.local/ns/shop/sa/s{n}"))).collect();
    ids.iter().for_each(|id| manager.track(id));
    let first = issuer.first_attempts(8).await[0].1.clone();
    let mut subscription = manager.subscribe(&first);
    manager.forget(&first);
    assert!(subscription.changed().await.is_err(), "its subscribers learn that it is gone");
    assert_eq!(issuer.first_attempts(9).await[8].1, ids[8]);
    assert!(manager.statuses().iter().all(|status| status.id != first));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_manager_ends_all_renewals() {
    let issuer = TestIssuer::new(MINUTE, Duration::ZERO);
    let manager = issuer.manager(None);
    let mut subscription = manager.subscribe(&cart());
    certificate(&mut subscription).await;
    drop(manager);
    subscription.mark_unchanged();
    assert!(subscription.changed().await.is_err());
    assert_eq!(issuer.attempts_so_far(), 1);
}

fn store(directory: &TempDir) -> Option<CertificateStore> {
    Some(CertificateStore::open(directory.path().join("identities")).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_restart_while_the_ca_is_away_serves_with_the_stored_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let issuer = TestIssuer::new(DAY, Duration::ZERO);
    let before = issuer.manager(store(&directory));
    certificate(&mut before.subscribe(&cart())).await;
    let serial = before.statuses()[0].certificate.clone().unwrap().serial;
    drop(before);

    issuer.set_reachable(false);
    let after = issuer.manager(store(&directory));
    let mut subscription = after.subscribe(&cart());
    let held = certificate(&mut subscription).await;
    assert_eq!(after.statuses()[0].certificate.clone().unwrap().serial, serial);
    assert_eq!(issuer.attempts_so_far(), 1, "nothing is asked for before it is time");

    issuer.set_reachable(true);
    let newer = next_certificate(&mut subscription, &held).await;
    assert!(newer.not_after > held.not_after, "it is renewed like any other");
}

#[tokio::test(start_paused = true)]
async fn a_damaged_stored_certificate_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let issuer = TestIssuer::new(DAY, Duration::ZERO);
    let file = directory.path().join("identities/cluster.local+shop+cart.pem");
    let manager = issuer.manager(store(&directory));
    std::fs::write(&file, "damaged").unwrap();
    certificate(&mut manager.subscribe(&cart())).await;
    assert_eq!(issuer.attempts_so_far(), 1);
    assert!(std::fs::read_to_string(&file).unwrap().contains("BEGIN CERTIFICATE"));
}

#[tokio::test(start_paused = true)]
async fn stored_keys_go_with_their_identity() {
    let directory = tempfile::tempdir().unwrap();
    let issuer = TestIssuer::new(DAY, Duration::ZERO);
    let files = || std::fs::read_dir(directory.path().join("identities")).unwrap().count();

    let before = issuer.manager(store(&directory));
    for id in [cart(), web()] {
        certificate(&mut before.subscribe(&id)).await;
    }
    assert_eq!(files(), 2);
    before.forget(&cart());
    assert_eq!(files(), 1);
    drop(before);

    let after = issuer.manager(store(&directory));
    certificate(&mut after.subscribe(&cart())).await;
    after.keep_only(&[cart()].into());
    assert_eq!(files(), 1, "what an earlier process left of others is gone");
    after.keep_only(&BTreeSet::new());
    assert_eq!((files(), after.statuses().len()), (0, 0));
}

/// The store is the successor's: what this process still renews must not replace what that one has.
#[tokio::test(start_paused = true)]
async fn a_released_store_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let issuer = TestIssuer::new(DAY, Duration::ZERO);
    let manager = issuer.manager(store(&directory));
    let mut web_certificates = manager.subscribe(&web());
    let first = certificate(&mut web_certificates).await;
    manager.release_store();
    next_certificate(&mut web_certificates, &first).await;
    certificate(&mut manager.subscribe(&cart())).await;
    manager.keep_only(&BTreeSet::new());
    drop(manager);

    issuer.set_reachable(false);
    let successor = issuer.manager(store(&directory));
    let found = certificate(&mut successor.subscribe(&web())).await;
    assert_eq!(found.not_after, first.not_after, "the one of before the release");
    assert!(successor.subscribe(&cart()).borrow().is_none());
}
