//! What holds for every configuration.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;

static DOCUMENTS: LazyLock<Vec<String>> = LazyLock::new(read_documents);

/// The documents of all goldens but those about precedence, which is by file and line on purpose.
fn read_documents() -> Vec<String> {
    let by_position = ["peer-authentication", "peer-authentication-mesh-strict"];
    let mut documents = Vec::new();
    let mut keys = BTreeSet::new();
    for case in cases() {
        if by_position.iter().any(|name| case.ends_with(name)) {
            continue;
        }
        let text = fs::read_to_string(case.join("in.yaml")).unwrap();
        // Names are unique within a case; across cases one of two would win by position.
        let documents_of_case = text.split("\n---\n").map(str::to_owned);
        documents.extend(documents_of_case.filter(|document| keys.insert(key(document))));
    }
    documents
}

fn key(document: &str) -> Option<ObjectKey> {
    let content = reading::read(&"x.yaml".into(), document);
    content.readings.first().map(|reading| reading.key.clone())
}

fn resources(inputs: &Inputs) -> Translated {
    Translated { notes: Notes::default(), ..translate(inputs, &settings()) }
}

fn in_files(documents: &[String], per_file: usize) -> Inputs {
    let names = ["a.yaml", "b.yaml", "c.yaml", "d.yaml", "e.yaml", "f.yaml", "g.yaml", "h.yaml"];
    let files = documents.chunks(per_file.max(documents.len().div_ceil(names.len())));
    inputs(names.into_iter().zip(files.map(|documents| documents.join("\n---\n"))))
}

/// Documents in which namespaces have to do with each other, now and then: they claim each other's
/// addresses, and policies of the root namespace select everywhere.
const ENTANGLED: [&str; 10] = [
    "apiVersion: v1\nkind: Pod\nmetadata: {name: twin, namespace: left, labels: {app: a}}\nspec: {nodeName: n1}\nstatus: {podIP: 10.77.0.1}\n",
    "apiVersion: v1\nkind: Pod\nmetadata: {name: twin, namespace: right, labels: {app: a}}\nspec: {nodeName: n2}\nstatus: {podIP: 10.77.0.1}\n",
    "apiVersion: v1\nkind: Pod\nmetadata: {name: lone, namespace: right, labels: {app: b}}\nspec: {nodeName: n1}\nstatus: {podIP: 10.77.0.2}\n",
    "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: left}\nspec: {ports: [{port: 80}]}\n",
    "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: a-1, namespace: left, labels: {kubernetes.io/service-name: a}}\naddressType: IPv4\nports: [{port: 80, protocol: TCP}]\nendpoints: [{addresses: [10.77.0.2]}, {addresses: [10.77.0.9]}]\n",
    "apiVersion: v1\nkind: Namespace\nmetadata: {name: left, labels: {istio.io/dataplane-mode: ambient}}\n",
    "apiVersion: v1\nkind: Node\nmetadata: {name: n1, labels: {topology.kubernetes.io/zone: z9}}\n",
    "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: everywhere, namespace: istio-system}\nspec: {selector: {matchLabels: {app: a}}, action: DENY, rules: [{}]}\n",
    "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default, namespace: istio-system}\nspec: {mtls: {mode: STRICT}}\n",
    "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: open, namespace: right}\nspec: {mtls: {mode: PERMISSIVE}}\n",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// What is kept from one translation to the next is what translating everything gives, notes
    /// included.
    #[test]
    fn translating_what_changed_is_the_same_as_translating_everything(
        from_goldens in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
        toggles in prop::collection::vec(any::<prop::sample::Index>(), 1..16),
    ) {
        let goldens = from_goldens.iter().map(|index| index.get(&DOCUMENTS).clone());
        let pool: Vec<String> = ENTANGLED.into_iter().map(str::to_owned).chain(goldens).collect();
        let mut present = vec![true; pool.len()];
        let (mut catalog, mut inputs, mut translator) =
            (Catalog::default(), Inputs::default(), Translator::default());
        for toggle in std::iter::once(None).chain(toggles.iter().map(Some)) {
            if let Some(index) = toggle {
                let at = index.index(pool.len());
                present[at] = !present[at];
            }
            let texts = pool.iter().zip(&present).filter(|(_, is_present)| **is_present);
            let text = texts.map(|(text, _)| text.as_str()).collect::<Vec<_>>().join("\n---\n");
            let contents = [("a.yaml".into(), FileState::Read(reading::read(&"a.yaml".into(), &text)))].into();
            let batch = catalog.update(Files { contents, unreadable: Vec::new() });
            let changed = batch.events.iter().map(|event| event.key().clone()).collect();
            inputs.apply(batch);
            let kept = translator.translate(&inputs, &changed, &settings());
            prop_assert_eq!(dump::translated(&kept), dump::translated(&translate(&inputs, &settings())));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Where and in which order objects are written makes no difference.
    #[test]
    fn order_does_not_matter(shuffled in Just(DOCUMENTS.clone()).prop_shuffle(), per_file in 1_usize..200) {
        let expected = dump::translated(&resources(&in_files(&DOCUMENTS, usize::MAX)));
        prop_assert_eq!(dump::translated(&resources(&in_files(&shuffled, per_file))), expected);
    }

    /// Changes that come one by one lead to the same as everything at once.
    #[test]
    fn step_by_step_is_the_same_as_at_once(
        order in Just(DOCUMENTS.clone()).prop_shuffle(),
        removed in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let mut catalog = Catalog::default();
        let mut stepwise = Inputs::default();
        let mut present = Vec::new();
        let mut show = |documents: &[String], stepwise: &mut Inputs| {
            let content = reading::read(&"a.yaml".into(), &documents.join("\n---\n"));
            let contents = [("a.yaml".into(), FileState::Read(content))].into();
            stepwise.apply(catalog.update(Files { contents, unreadable: Vec::new() }));
        };
        for chunk in order.chunks(40) {
            present.extend_from_slice(chunk);
            show(&present, &mut stepwise);
        }
        for index in removed {
            present.remove(index.index(present.len()));
            show(&present, &mut stepwise);
        }
        let at_once = in_files(&present, usize::MAX);
        prop_assert_eq!(dump::translated(&resources(&stepwise)), dump::translated(&resources(&at_once)));
    }

    /// A document that is cut off or overwritten changes nothing about the others.
    #[test]
    fn a_broken_document_costs_only_itself(
        index in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        garbage in "[\\[{:\t\"'&*!%@` -]{1,8}",
    ) {
        let mut documents = DOCUMENTS.clone();
        let expected = in_files(&documents, usize::MAX);
        let index = index.index(documents.len());
        let broken = &mut documents[index];
        let broken_key = key(broken);
        let mut cut = at.index(broken.len());
        while !broken.is_char_boundary(cut) {
            cut -= 1;
        }
        broken.truncate(cut);
        broken.push_str(&garbage);
        let found = in_files(&documents, usize::MAX);
        for (key, entry) in expected.entries().filter(|(key, _)| Some(*key) != broken_key.as_ref()) {
            let same = found.entries().find(|(other, _)| *other == key).map(|(_, entry)| verdict(key, entry).0);
            prop_assert_eq!(same, Some(verdict(key, entry).0), "{}", key);
        }
    }
}
