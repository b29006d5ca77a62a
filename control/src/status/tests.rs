//! Broken configurations: each is reported with file and line, all else applies, nothing opens.

use std::sync::Arc;

use ambit_mesh::address::Network;
use ambit_mesh::identity::TrustDomain;
use ambit_mesh::policy::Action;
use serde_json::Value;

use super::*;
use crate::inputs::Inputs;
use crate::source::catalog::{Catalog, FileState, Files};
use crate::source::reading;
use crate::translate::{NetnsAnnotation, Settings, translate};

/// A control that is shown one file again and again.
#[derive(Default)]
struct Control {
    catalog: Catalog,
    inputs: Inputs,
}

impl Control {
    fn show(&mut self, text: &str) -> Generation {
        let content = reading::read(&"shop.yaml".into(), text);
        let contents = [(Arc::from("shop.yaml"), FileState::Read(content))].into();
        self.inputs.apply(self.catalog.update(Files { contents, unreadable: Vec::new() }));
        let settings = Settings {
            cluster_id: "Kubernetes".into(),
            network: Network::default(),
            trust_domain: TrustDomain::default(),
            mesh_ranges: Vec::new(),
            netns_annotation: NetnsAnnotation::Ignored,
        };
        let translated = translate(&self.inputs, &settings);
        Generation { number: 1, inputs: self.inputs.clone(), translated }
    }
}

fn status(generation: &Generation, path: &str) -> Value {
    let documents = documents(generation, &|_, _| None);
    documents.get(&PathBuf::from(path)).map(|text| serde_json::from_str(text).unwrap()).unwrap_or_default()
}

const POLICY: &str = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: deny-one
  namespace: shop
spec:
  action: DENY
  rules:
  - from:
    - source:
        principals: [cluster.local/ns/shop/sa/evil]
";

const POD: &str = "\
apiVersion: v1
kind: Pod
metadata:
  name: web
  namespace: shop
  labels: {istio.io/dataplane-mode: ambient}
spec:
  nodeName: node-a
status:
  podIP: 10.1.0.1
";

/// What becomes of a policy between two good documents when it is written like this. The line is that
/// of the file, in which the policy begins on line 12.
#[test]
fn broken_policies_are_reported_and_never_open() {
    let head = POLICY.split("spec:").next().unwrap();
    let rows = [
        ("not YAML", format!("{head}spec: {{rules: [}}\n"), 17),
        ("a tab", format!("{head}spec:\n\tmode: x\n"), 18),
        ("a key twice", format!("{POLICY}  action: ALLOW\n"), 23),
        ("wrong type", format!("{head}spec: [1]\n"), 17),
        ("unknown action", format!("{head}spec:\n  action: REFUSE\n"), 18),
        (
            "bad CIDR",
            POLICY.replace("principals: [cluster.local/ns/shop/sa/evil]", "ipBlocks: [10.0.0.0/40]"),
            22,
        ),
        (
            "bad port",
            format!("{head}spec:\n  rules:\n  - to:\n    - operation:\n        ports:\n        - \"0\"\n"),
            22,
        ),
        ("misspelt field", POLICY.replace("principals", "principal"), 22),
        ("misspelt spec", POLICY.replace("spec:", "specs:"), 17),
        ("empty source", POLICY.replace("principals: [cluster.local/ns/shop/sa/evil]", "principals: []"), 20),
        ("star inside", POLICY.replace("sa/evil", "sa/*vil"), 22),
        (
            "selector and targetRefs",
            format!(
                "{POLICY}  selector: {{matchLabels: {{a: b}}}}\n  targetRefs: [{{kind: Service, name: x}}]\n"
            ),
            18,
        ),
        ("unserved version", POLICY.replace("/v1", "/v7"), 12),
    ];
    for (name, broken, line) in rows {
        let file = |policy: &str| format!("{POD}---\n{policy}---\n{}", POD.replace("name: web", "name: api"));

        // Never readable: closed.
        let generation = Control::default().show(&file(&broken));
        let found = status(&generation, "AuthorizationPolicy/shop/deny-one.json");
        assert_eq!(found["reason"], "Closed", "{name}: {found}");
        assert_eq!((&found["file"], &found["line"]), (&"shop.yaml".into(), &line.into()), "{name}: {found}");
        let policy = generation.translated.policies.values().next().unwrap();
        assert_eq!((policy.action, policy.rules.len()), (Action::Deny, 1), "{name}");
        assert!(policy.rules[0].clauses.is_empty(), "{name}: does not deny everything");
        assert_eq!(generation.translated.workloads.len(), 2, "{name}: the others do not apply");

        // Readable before: as it was.
        let mut control = Control::default();
        let before = control.show(&file(POLICY)).translated.policies;
        let generation = control.show(&file(&broken));
        let found = status(&generation, "AuthorizationPolicy/shop/deny-one.json");
        assert_eq!(found["reason"], "LastGoodKept", "{name}: {found}");
        assert_eq!(generation.translated.policies, before, "{name}");

        // And gone when it is gone.
        assert!(control.show(POD).translated.policies.is_empty(), "{name}");
    }
}

#[test]
fn documents_that_name_no_object_are_reported() {
    let rows = [
        ("text", "hello\n", "shop.yaml", 12),
        ("no kind", "apiVersion: v1\nmetadata: {name: a}\n", "shop.yaml", 12),
        ("no name", "apiVersion: v1\nkind: Pod\nmetadata: {}\n", "shop.yaml", 12),
        ("not a name", "apiVersion: v1\nkind: Pod\nmetadata: {name: ../../etc/passwd}\n", "shop.yaml", 12),
        ("broken before its name", "apiVersion: v1\nkind: Pod\nmetadata: [\n", "shop.yaml", 14),
    ];
    for (name, text, file, line) in rows {
        let generation = Control::default().show(&format!("{POD}---\n{text}"));
        let found = status(&generation, "problems.json");
        assert_eq!(found[0]["reason"], "DocumentUnreadable", "{name}: {found}");
        assert_eq!((&found[0]["file"], &found[0]["line"]), (&file.into(), &line.into()), "{name}: {found}");
        assert_eq!(generation.translated.workloads.len(), 1, "{name}: the others do not apply");
    }
}

#[test]
fn objects_without_effect_say_so() {
    let text = format!(
        "{POD}---\n{POD}---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web, namespace: shop}}\n"
    );
    let generation = Control::default().show(&text);
    let duplicate = status(&generation, "problems.json");
    assert_eq!(
        (&duplicate[0]["reason"], &duplicate[0]["line"]),
        (&"Duplicate".into(), &12.into()),
        "{duplicate}"
    );
    let foreign = status(&generation, "Deployment.apps/shop/web.json");
    assert_eq!((&foreign["accepted"], &foreign["reason"]), (&false.into(), &"Ignored".into()));
    let good = status(&generation, "Pod/shop/web.json");
    assert_eq!((&good["accepted"], &good["line"]), (&true.into(), &1.into()));
}

#[test]
fn a_policy_says_how_many_proxies_have_it() {
    let generation = Control::default().show(POLICY);
    let progress = |_, name: &str| {
        assert_eq!(name, "shop/deny-one");
        Some(Programmed { acknowledged: 2, wanted: 3, refusals: vec![("node-c".into(), "too large".into())] })
    };
    let documents = documents(&generation, &progress);
    let found: Value =
        serde_json::from_str(&documents[&PathBuf::from("AuthorizationPolicy/shop/deny-one.json")]).unwrap();
    assert_eq!(found["programmed"]["message"], "programmed on 2 of 3 proxies");
    assert_eq!(found["programmed"]["refusals"][0], "node-c: too large");
}
