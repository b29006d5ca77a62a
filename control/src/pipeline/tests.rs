//! From an edited file to what is published, with everything in between but the network.

use std::fs;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use ambit_mesh::address::Network;
use ambit_mesh::identity::TrustDomain;
use ambit_xds::ResourceType;
use tempfile::TempDir;

use super::*;
use crate::publish::{self, Published};
use crate::source::dir::DirSource;
use crate::translate::NetnsAnnotation;

const LONG: Duration = Duration::from_secs(30);

const SHOP: &str = "\
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: Node
metadata: {name: node-a}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop}
spec: {nodeName: node-a, serviceAccountName: web}
status: {podIP: 10.1.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: cart, namespace: shop}
spec: {nodeName: node-a, serviceAccountName: cart}
status: {podIP: 10.1.0.2}
";

struct Control {
    directory: TempDir,
    published: Published,
    tokens: watch::Receiver<Arc<NodeTokens>>,
    _source: DirSource,
}

impl Control {
    fn start(text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir(path("config")).unwrap();
        fs::write(path("config/shop.yaml"), text).unwrap();
        let settings = Settings {
            cluster_id: "Kubernetes".into(),
            network: Network::default(),
            trust_domain: TrustDomain::default(),
            mesh_ranges: Vec::new(),
            netns_annotation: NetnsAnnotation::Ignored,
        };
        let (tokens, known_tokens) = watch::channel(Arc::default());
        let (publisher, published) = publish::channel();
        let memory = Memory::open(path("last-good")).unwrap();
        let token_files = TokenFiles::open(path("tokens")).unwrap();
        let pipeline =
            Pipeline::new(settings, publisher).remembering(memory).with_node_tokens(token_files, tokens);
        let (batches, to_apply) = sync_channel(1);
        let source = DirSource::start(path("config"), batches).unwrap();
        // Ends with the source.
        std::thread::spawn(move || pipeline.run(&to_apply));
        Self { directory, published, tokens: known_tokens, _source: source }
    }

    fn write(&self, text: &str) {
        fs::write(self.directory.path().join("config/shop.yaml"), text).unwrap();
    }

    async fn generation(&mut self, number: u64) {
        let reached = self.published.generation.wait_for(|generation| generation.number >= number);
        tokio::time::timeout(LONG, reached).await.unwrap().unwrap();
    }

    /// The version of a resource, as subscribers are told it.
    fn version(&self, name: &str) -> Option<Arc<str>> {
        let resources = self.published.resources.borrow().clone();
        resources.of_type(ResourceType::Address).get(name).map(|resource| resource.version().clone())
    }

    fn identities(&self) -> usize {
        self.published.identities.borrow().by_node.values().map(|on_node| on_node.len()).sum()
    }
}

#[tokio::test]
async fn an_edit_changes_what_it_changes_and_nothing_else() {
    let mut control = Control::start(SHOP);
    control.generation(1).await;
    assert_eq!(control.identities(), 2);
    let token = fs::read_to_string(control.directory.path().join("tokens/node-a")).unwrap();
    assert_eq!(control.tokens.borrow().node_of(&token).map(|node| &**node), Some("node-a"));
    let (web, cart) = ("Kubernetes//Pod/shop/web", "Kubernetes//Pod/shop/cart");
    let (web_before, cart_before) = (control.version(web).unwrap(), control.version(cart).unwrap());

    control.write(&SHOP.replace("10.1.0.2", "10.1.0.3"));
    control.generation(2).await;
    assert_eq!(control.version(web).unwrap(), web_before);
    assert_ne!(control.version(cart).unwrap(), cart_before);

    // A line more moves objects within the file, which is nothing to subscribers.
    control.published.resources.mark_unchanged();
    control.write(&SHOP.replace("10.1.0.2", "10.1.0.3").replace("---\n", "---\n# a comment\n"));
    control.generation(3).await;
    assert!(!control.published.resources.has_changed().unwrap());

    control.write("apiVersion: v1\nkind: Node\nmetadata: {name: node-b}\n");
    control.generation(4).await;
    assert_eq!((control.version(web), control.identities()), (None, 0));
    assert_eq!(control.tokens.borrow().node_of(&token), None);
}
