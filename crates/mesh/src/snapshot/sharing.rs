//! What workloads have in common is kept once: names of namespaces, nodes and accounts, and the
//! services that the pods of a Deployment serve.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use crate::workload::{ServicePorts, Workload};

/// Texts and lists that workloads hold. Those that none holds any more are forgotten by and by.
#[derive(Clone, Debug, Default)]
pub(super) struct Sharing {
    texts: HashSet<Arc<str>, BuildHasherDefault<DefaultHasher>>,
    services: HashSet<ServicePorts, BuildHasherDefault<DefaultHasher>>,
    /// How many there were after the last look for what nobody holds.
    after_sweep: usize,
}

/// So many are not worth a look.
const FEW: usize = 1_024;

impl Sharing {
    /// Has a workload hold what others hold already. It stays equal to what it was.
    pub(super) fn share(&mut self, workload: &mut Workload) {
        self.sweep_if_grown();
        let locality = &mut workload.locality;
        for text in [
            &mut workload.namespace,
            &mut workload.cluster_id,
            &mut workload.network.0,
            &mut workload.node,
            &mut workload.workload_name,
            &mut workload.canonical_name,
            &mut workload.canonical_revision,
            &mut locality.region,
            &mut locality.zone,
            &mut locality.subzone,
        ] {
            share_text(&mut self.texts, text);
        }
        workload.identity.map_texts(|text| share_text(&mut self.texts, text));
        match self.services.get(&workload.services) {
            Some(known) => workload.services = known.clone(),
            None => drop(self.services.insert(workload.services.clone())),
        }
    }

    /// Each look costs as much as what was added since the one before.
    fn sweep_if_grown(&mut self) {
        if self.texts.len() + self.services.len() > 2 * self.after_sweep + FEW {
            self.texts.retain(|text| Arc::strong_count(text) > 1);
            self.services.retain(|services| services.holders() > 1);
            self.after_sweep = self.texts.len() + self.services.len();
        }
    }
}

fn share_text(texts: &mut HashSet<Arc<str>, BuildHasherDefault<DefaultHasher>>, text: &mut Arc<str>) {
    match texts.get(&**text) {
        Some(known) => *text = known.clone(),
        None => drop(texts.insert(text.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{endpoint, service_name};

    #[test]
    fn equal_parts_are_held_once_and_forgotten_with_their_last_holder() {
        let mut sharing = Sharing::default();
        let name = service_name("shop", "web");
        let [mut one, mut two] = ["web-0", "web-1"].map(|pod| endpoint(pod, &["10.0.0.1"], &[&name]));
        let before = two.clone();
        sharing.share(&mut one);
        sharing.share(&mut two);
        assert_eq!(two, before);
        assert!(Arc::ptr_eq(&one.namespace, &two.namespace));
        assert_eq!(one.identity.namespace().as_ptr(), one.namespace.as_ptr());
        assert_eq!(one.services.holders(), 3, "two workloads and the list of lists");

        for index in 0..10 * FEW {
            sharing.share(&mut endpoint(&format!("gone-{index}"), &[], &[]));
        }
        assert!(sharing.texts.len() < 3 * FEW, "{} texts are kept", sharing.texts.len());
    }
}
