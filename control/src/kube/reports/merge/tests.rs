use std::collections::BTreeMap;
use std::sync::Arc;

use ambit_mesh::address::ServiceName;
use ambit_mesh::policy::{Action, AuthorizationPolicy, PolicyName, PolicyScope};
use ambit_xds::ResourceType;
use ambit_xds::resources::{Collection, Resource, Resources};
use ambit_xds::server::{Counts, Proxy, Standing};

use super::*;
use crate::kube::reports::own::{Observed, report};

fn generation(policies: &[(&str, Action)]) -> Arc<Collection> {
    let policy = |&(name, action): &(&str, Action)| {
        Resource::policy(&AuthorizationPolicy {
            name: PolicyName { namespace: "shop".into(), name: name.into() },
            scope: PolicyScope::Namespace,
            action,
            rules: Vec::new(),
            dry_run: false,
        })
    };
    let resources: Resources = policies.iter().map(policy).collect();
    resources.of_type(ResourceType::Authorization).clone()
}

/// A replica that serves this generation to so many proxies; `(policy, acknowledged, refused)` is not
/// acknowledged by all.
fn replica(generation: &Collection, proxies: usize, exceptions: &[(&str, usize, usize)]) -> Reported {
    let counts = |&(name, acknowledged, refused): &(&str, usize, usize)| {
        let version = generation.get(name).expect("a policy of the generation").version().clone();
        (name.into(), Counts { version, wanted: proxies, acknowledged, refused })
    };
    let proxy = |index: usize| {
        let refuses = exceptions.iter().filter(|(_, _, refused)| *refused > index);
        Proxy {
            node: format!("node-{index}").into(),
            id: String::new(),
            lacking: 0,
            refusal: refuses.clone().next().map(|_| "too large".to_owned()),
            refused: refuses.map(|(name, ..)| (*name).into()).collect(),
            problems: Vec::new(),
        }
    };
    let standing = Standing {
        proxies: (0..proxies).map(proxy).collect(),
        want_everything: proxies,
        of_waypoints: BTreeMap::new(),
        exceptions: exceptions.iter().map(counts).collect(),
    };
    let of = |standing, generation: &Collection| Observed {
        standing,
        digests: Arc::new(Digests::of(generation)),
        total: generation.len(),
    };
    let nothing = of(Standing::default(), &Collection::default());
    Reported::of(&report(&Layers { four: of(standing, generation), seven: nothing }))
}

fn counted(reports: &[Reported], generation: &Collection, name: &str) -> (u32, u32, u32) {
    let policy = generation.get(name).expect("a policy of the generation");
    let progress = progress(reports, Layer::Four, &Digests::of(generation), policy);
    (progress.acknowledged, progress.wanted, progress.refused)
}

#[test]
fn proxies_of_all_replicas_are_counted() {
    let same = generation(&[("a", Action::Deny), ("b", Action::Deny)]);
    let reports = [
        replica(&same, 2, &[]),
        replica(&same, 3, &[("shop/a", 1, 0)]),
        replica(&same, 1, &[("shop/b", 0, 1)]),
    ];
    assert_eq!(counted(&reports, &same, "shop/a"), (4, 6, 0));
    assert_eq!(counted(&reports, &same, "shop/b"), (5, 6, 1));
    let policy = same.get("shop/b").unwrap();
    let of_b = progress(&reports, Layer::Four, &Digests::of(&same), policy);
    assert_eq!(of_b.refusals, ["node-0: too large"]);
    assert_eq!(progress(&[], Layer::Four, &Digests::of(&same), policy), Progress::default());
}

#[test]
fn instances_of_waypoints_are_counted_for_what_is_for_them() {
    let name = |of: &str| ServiceName { namespace: "shop".into(), hostname: of.into() };
    let audience = |of: &[&str]| Audience::Waypoints(Arc::new(of.iter().map(|of| name(of)).collect()));
    let same = generation(&[("a", Action::Deny)]);
    let policy = |to: Audience| Resource::clone(same.get("shop/a").unwrap()).to(to);
    let standing = Standing {
        want_everything: 3,
        of_waypoints: [(name("w1"), 2), (name("w2"), 1)].into(),
        ..Standing::default()
    };
    let digests = Arc::new(Digests::of(&same));
    let of = |standing| Observed { standing, digests: digests.clone(), total: 1 };
    let reported = [Reported::of(&report(&Layers { four: of(standing), seven: of(Standing::default()) }))];
    let counted = |to| {
        let progress = progress(&reported, Layer::Four, &digests, &policy(to));
        (progress.acknowledged, progress.wanted)
    };
    assert_eq!(counted(Audience::Everybody), (6, 6));
    assert_eq!(counted(audience(&["w1"])), (5, 5));
    assert_eq!(counted(audience(&["w1", "w2"])), (6, 6));
    assert_eq!(counted(audience(&["w3"])), (3, 3));
    // What does not fit counts as not acknowledged.
    let many = (0..351).map(|index| (name(&format!("many-{index:03}")), 2)).collect();
    let standing = Standing { want_everything: 3, of_waypoints: many, ..Standing::default() };
    let reported = [Reported::of(&report(&Layers { four: of(standing), seven: of(Standing::default()) }))];
    let counted = |to| {
        let progress = progress(&reported, Layer::Four, &digests, &policy(to));
        (progress.acknowledged, progress.wanted)
    };
    assert_eq!(counted(Audience::Everybody), (703, 705));
    assert_eq!(counted(audience(&["many-000"])), (5, 5));
    assert_eq!(counted(audience(&["many-350"])), (3, 4));
}

/// A replica whose watch is behind has another version in force, and its proxies too.
#[test]
fn another_version_has_not_been_acknowledged() {
    let newer = generation(&[("a", Action::Deny), ("b", Action::Deny), ("c", Action::Deny)]);
    let older = generation(&[("a", Action::Allow), ("b", Action::Deny)]);
    let reports = [replica(&newer, 2, &[]), replica(&older, 3, &[])];
    assert_eq!(counted(&reports, &newer, "shop/a"), (2, 5, 0), "changed");
    assert_eq!(counted(&reports, &newer, "shop/b"), (5, 5, 0), "the same in both");
    assert_eq!(counted(&reports, &newer, "shop/c"), (2, 5, 0), "new");
    let refusing = [replica(&newer, 2, &[]), replica(&older, 3, &[("shop/a", 0, 3)])];
    assert_eq!(counted(&refusing, &newer, "shop/a"), (2, 5, 0), "the older version was refused");
}

#[test]
fn what_did_not_fit_has_not_been_acknowledged() {
    let names: Vec<String> = (0..700).map(|index| format!("p{index}")).collect();
    let policies: Vec<(&str, Action)> = names.iter().map(|name| (name.as_str(), Action::Deny)).collect();
    let generation = generation(&policies);
    let full_names: Vec<String> = names.iter().map(|name| format!("shop/{name}")).collect();
    // Of 700 policies 600 are pending: only 400 of these fit.
    let pending: Vec<(&str, usize, usize)> =
        full_names[..600].iter().map(|name| (name.as_str(), 0, 0)).collect();
    let reports = [replica(&generation, 2, &pending)];
    for name in &full_names[..600] {
        assert_eq!(counted(&reports, &generation, name), (0, 2, 0), "{name}");
    }
    let acknowledged = full_names[600..].iter().filter(|name| counted(&reports, &generation, name).0 == 2);
    assert!(acknowledged.count() > 50, "most of those in other parts are known to be acknowledged");
}
