//! How far one type of a generation has come at all subscribers together. Pure.
//!
//! Nearly always everybody has nearly everything: only what is not so is listed.

use std::collections::BTreeMap;
use std::sync::Arc;

use ambit_mesh::address::ServiceName;

use crate::resources::{Audience, Collection, Resource, Viewer};
use crate::subscriber::{Lack, Subscriber};

/// How far a generation has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The subscribers, in the order in which they came.
    pub proxies: Vec<Proxy>,
    /// How many of the agents of nodes want every resource, and with it each one that is not listed.
    pub want_everything: usize,
    /// How many instances of each waypoint want every resource that is for it, and with it each of those that is
    /// not listed.
    pub of_waypoints: BTreeMap<ServiceName, usize>,
    /// The resources of which not all of those have acknowledged the generation's version, or that
    /// others have asked for by name.
    pub exceptions: BTreeMap<Arc<str>, Counts>,
}

/// One subscriber.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// The node that it has authenticated as.
    pub node: Arc<str>,
    /// How it calls itself.
    pub id: String,
    /// How many resources of the generation it lacks.
    pub lacking: usize,
    /// The words of its last refusal, while it refuses something.
    pub refusal: Option<String>,
    /// What it refuses.
    pub refused: Vec<Arc<str>>,
    /// What it tells of itself that a person should know.
    pub problems: Vec<Arc<str>>,
}

/// How far one resource has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Its version.
    pub version: Arc<str>,
    /// How many subscribers want it.
    pub wanted: usize,
    /// How many of them have acknowledged this version.
    pub acknowledged: usize,
    /// How many of them have refused this version.
    pub refused: usize,
}

impl Standing {
    /// Counts one more subscriber in.
    pub(super) fn add(
        &mut self,
        node: &Arc<str>,
        id: &str,
        problems: &[Arc<str>],
        subscriber: &Subscriber,
        generation: &Collection,
    ) {
        let lacking = subscriber.lacking(generation);
        if subscriber.wants_everything() {
            match subscriber.viewer() {
                Viewer::Node => self.want_everything += 1,
                Viewer::Waypoint(name) => *self.of_waypoints.entry(name.clone()).or_default() += 1,
            }
            for (name, counts) in &mut self.exceptions {
                if generation
                    .get(name)
                    .is_some_and(|resource| resource.audience().includes(subscriber.viewer()))
                {
                    counts.wanted += 1;
                    counts.acknowledged += 1;
                }
            }
        } else {
            for resource in subscriber.wanted(generation) {
                let counts = self.exception(resource);
                counts.wanted += 1;
                counts.acknowledged += 1;
            }
        }
        let mut refused = Vec::new();
        for (resource, lack) in &lacking {
            let counts = self.exception(resource);
            counts.acknowledged -= 1;
            if *lack == Lack::Refused {
                counts.refused += 1;
                refused.push(resource.name().clone());
            }
        }
        let refusal = subscriber.last_refusal().filter(|_| !refused.is_empty());
        self.proxies.push(Proxy {
            node: node.clone(),
            id: id.to_owned(),
            lacking: lacking.len(),
            refusal: refusal.map(|refusal| refusal.message.clone()),
            refused,
            problems: problems.to_vec(),
        });
    }

    /// What is counted of a resource; at first, what those make who want everything and have it.
    fn exception(&mut self, resource: &Resource) -> &mut Counts {
        let waypoints: usize = match resource.audience() {
            Audience::Everybody => self.of_waypoints.values().sum(),
            Audience::Waypoints(names) => names.iter().filter_map(|name| self.of_waypoints.get(name)).sum(),
        };
        let everybody = self.want_everything + waypoints;
        self.exceptions.entry(resource.name().clone()).or_insert_with(|| Counts {
            version: resource.version().clone(),
            wanted: everybody,
            acknowledged: everybody,
            refused: 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use ambit_mesh::policy::{Action, AuthorizationPolicy, PolicyName, PolicyScope};
    use ambit_proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
    use ambit_proto::google::rpc::Status;

    use super::*;
    use crate::ResourceType;
    use crate::resources::Resources;

    const KIND: ResourceType = ResourceType::Authorization;

    fn policies(policies: &[(&str, Action)]) -> Resources {
        let policy = |&(name, action): &(&str, Action)| {
            Resource::policy(&AuthorizationPolicy {
                name: PolicyName { namespace: "shop".into(), name: name.into() },
                scope: PolicyScope::Namespace,
                action,
                rules: Vec::new(),
                dry_run: false,
            })
        };
        policies.iter().map(policy).collect()
    }

    struct Client {
        node: Arc<str>,
        subscriber: Subscriber,
        response: Option<DeltaDiscoveryResponse>,
    }

    impl Client {
        fn new(node: &str, generation: &Resources, names: &[&str]) -> Self {
            Self::seeing(Viewer::Node, node, generation, names)
        }

        fn seeing(viewer: Viewer, node: &str, generation: &Resources, names: &[&str]) -> Self {
            let mut subscriber = Subscriber::new(KIND, generation, viewer);
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            let request =
                DeltaDiscoveryRequest { resource_names_subscribe: names, ..DeltaDiscoveryRequest::default() };
            let response = subscriber.on_request(&request, Instant::now());
            Self { node: node.into(), subscriber, response }
        }

        fn change(&mut self, generation: &Resources) {
            if let Some(response) = self.subscriber.on_change(generation, Instant::now()) {
                self.response = Some(response);
            }
        }

        fn answer(&mut self, refusal: Option<&str>) {
            let nonce = self.response.take().expect("a response waits for its answer").nonce;
            let error_detail =
                refusal.map(|message| Status { message: message.to_owned(), ..Status::default() });
            let request = DeltaDiscoveryRequest {
                response_nonce: nonce,
                error_detail,
                ..DeltaDiscoveryRequest::default()
            };
            self.response = self.subscriber.on_request(&request, Instant::now());
        }
    }

    fn standing(clients: &[Client], generation: &Resources) -> Standing {
        let mut standing = Standing::default();
        for client in clients {
            standing.add(&client.node, "id", &[], &client.subscriber, generation.of_type(KIND));
        }
        standing
    }

    /// `name: acknowledged of wanted, refused`
    fn exceptions(standing: &Standing) -> Vec<String> {
        let line = |(name, counts): (&Arc<str>, &Counts)| {
            format!("{name}: {} of {}, {}", counts.acknowledged, counts.wanted, counts.refused)
        };
        standing.exceptions.iter().map(line).collect()
    }

    #[test]
    fn only_what_is_missing_somewhere_is_listed() {
        let first = policies(&[("a", Action::Deny), ("b", Action::Deny)]);
        let mut clients = ["n1", "n2", "n3"].map(|node| Client::new(node, &first, &[]));
        assert_eq!(exceptions(&standing(&clients, &first)), ["shop/a: 0 of 3, 0", "shop/b: 0 of 3, 0"]);
        clients.iter_mut().for_each(|client| client.answer(None));
        let complete = standing(&clients, &first);
        assert_eq!((complete.want_everything, exceptions(&complete)), (3, Vec::new()));

        let second = policies(&[("a", Action::Deny), ("b", Action::Allow), ("c", Action::Deny)]);
        // A generation that no subscriber has been told of is lacked by all.
        assert_eq!(exceptions(&standing(&clients, &second)), ["shop/b: 0 of 3, 0", "shop/c: 0 of 3, 0"]);
        clients.iter_mut().for_each(|client| client.change(&second));
        clients[1].answer(None);
        clients[2].answer(Some("too large"));
        let partial = standing(&clients, &second);
        assert_eq!(exceptions(&partial), ["shop/b: 1 of 3, 1", "shop/c: 1 of 3, 1"]);
        let refusing: Vec<_> =
            partial.proxies.iter().map(|proxy| (proxy.lacking, proxy.refusal.as_deref())).collect();
        assert_eq!(refusing, [(2, None), (0, None), (2, Some("too large"))]);

        let third = policies(&[("a", Action::Deny)]);
        assert_eq!(exceptions(&standing(&clients, &third)), [""; 0], "what is gone is lacked by nobody");
    }

    #[test]
    fn a_waypoint_is_counted_for_what_is_for_it() {
        let name = |of: &str| ServiceName { namespace: "shop".into(), hostname: of.into() };
        let audience = |of: &[&str]| Audience::Waypoints(Arc::new(of.iter().map(|of| name(of)).collect()));
        let policy = |of: &str, to: Audience| {
            let named = policies(&[(of, Action::Deny)]);
            let found = named.of_type(KIND).iter().next().expect("there is one").as_ref().clone();
            found.to(to)
        };
        let generation: Resources = [
            policy("all", Audience::Everybody),
            policy("one", audience(&["w1"])),
            policy("both", audience(&["w1", "w2"])),
        ]
        .into_iter()
        .collect();
        let waypoint = |of: &str| Client::seeing(Viewer::Waypoint(name(of)), of, &generation, &[]);
        let mut clients =
            [waypoint("w1"), waypoint("w1"), waypoint("w2"), Client::new("n", &generation, &[])];
        assert_eq!(
            exceptions(&standing(&clients, &generation)),
            ["shop/all: 0 of 4, 0", "shop/both: 0 of 4, 0", "shop/one: 0 of 3, 0"]
        );
        clients[0].answer(None);
        clients[3].answer(Some("too large"));
        assert_eq!(
            exceptions(&standing(&clients, &generation)),
            ["shop/all: 1 of 4, 1", "shop/both: 1 of 4, 1", "shop/one: 1 of 3, 1"]
        );
        clients[1..3].iter_mut().for_each(|client| client.answer(None));
        let standing = standing(&clients, &generation);
        let counts: Vec<_> =
            standing.of_waypoints.iter().map(|(name, count)| (&*name.hostname, *count)).collect();
        assert_eq!((standing.want_everything, counts), (1, vec![("w1", 2), ("w2", 1)]));
    }

    #[test]
    fn who_asks_by_name_counts_only_there() {
        let generation = policies(&[("a", Action::Deny), ("b", Action::Deny)]);
        let mut clients = [
            Client::new("n1", &generation, &["shop/a"]),
            Client::new("n2", &generation, &[]),
            Client::new("n3", &generation, &["shop/a", "shop/b"]),
        ];
        clients.iter_mut().for_each(|client| client.answer(None));
        let standing = standing(&clients, &generation);
        assert_eq!(standing.want_everything, 1);
        assert_eq!(exceptions(&standing), ["shop/a: 3 of 3, 0", "shop/b: 2 of 2, 0"]);
    }
}
