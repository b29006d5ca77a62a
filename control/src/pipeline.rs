//! The way of a change: batch -> inputs -> translation -> publication.

use std::collections::BTreeSet;
use std::mem;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Instant;

use tokio::sync::watch;

use crate::ca::grant::pod_of_caller;
use crate::ca::tokens::NodeTokens;
use crate::inputs::Inputs;
use crate::memory::Memory;
use crate::objects::{Kind, KnownKind};
use crate::publish::Publisher;
use crate::source::{Batch, Content, Event, Rejection, SourceProblem};
use crate::telemetry;
use crate::tokens::TokenFiles;
use crate::translate::{Settings, Translated, Translator};

/// Everything that a change runs through.
#[derive(Debug)]
pub struct Pipeline {
    inputs: Inputs,
    memory: Option<Memory>,
    settings: Settings,
    translator: Translator,
    node_tokens: Option<(TokenFiles, watch::Sender<Arc<NodeTokens>>)>,
    publisher: Publisher,
    has_published: bool,
}

impl Pipeline {
    /// A pipeline through which nothing has run.
    pub fn new(settings: Settings, publisher: Publisher) -> Self {
        let (inputs, translator) = (Inputs::default(), Translator::default());
        Self {
            inputs,
            memory: None,
            settings,
            translator,
            node_tokens: None,
            publisher,
            has_published: false,
        }
    }

    /// Keeps last good versions on disk. `inputs` knows what `memory` remembers.
    #[must_use]
    pub fn remembering(self, (inputs, memory): (Inputs, Memory)) -> Self {
        Self { inputs, memory: Some(memory), ..self }
    }

    /// Gives every Node object a token of its own.
    #[must_use]
    pub fn with_node_tokens(self, files: TokenFiles, tokens: watch::Sender<Arc<NodeTokens>>) -> Self {
        Self { node_tokens: Some((files, tokens)), ..self }
    }

    /// Applies batches until the source is gone. It blocks: run it on a thread of its own.
    pub fn run(mut self, batches: &Receiver<Batch>) {
        for batch in batches {
            self.apply(batch);
        }
    }

    /// Applies one batch and publishes what became of it.
    pub fn apply(&mut self, batch: Batch) {
        let started = Instant::now();
        let events = batch.events.len();
        log_problems(&batch, self.inputs.problems());
        let changed: BTreeSet<_> = batch.events.iter().map(|event| event.key().clone()).collect();
        self.inputs.apply(batch);
        let translated = self.translator.translate(&self.inputs, &changed, &self.settings);
        self.update_node_tokens(&translated);
        let (workloads, services, policies) =
            (translated.workloads.len(), translated.services.len(), translated.policies.len());
        self.publisher.publish(self.inputs.clone(), translated);
        let elapsed = started.elapsed();
        telemetry::applied(&self.inputs, elapsed);
        // A cluster has several a second: only the first says something to who reads the log.
        if mem::replace(&mut self.has_published, true) {
            tracing::debug!(events, workloads, services, policies, ?elapsed, "configuration published");
        } else {
            tracing::info!(events, workloads, services, policies, ?elapsed, "first configuration published");
        }
        // Last: nobody waits for it.
        if let Some(memory) = &mut self.memory {
            memory.keep(&self.inputs, &changed);
        }
    }

    /// Before anything is published: an agent that learns of a workload has to be able to call.
    fn update_node_tokens(&self, translated: &Translated) {
        let Some((files, tokens)) = &self.node_tokens else { return };
        let nodes = self
            .inputs
            .of_cluster()
            .filter(|(key, entry)| key.kind == Kind::Known(KnownKind::Node) && entry.object().is_some());
        let callers = translated.identities.by_node.keys();
        let waypoints = callers.filter(|name| pod_of_caller(name).is_some()).cloned();
        tokens.send_replace(Arc::new(files.of(nodes.map(|(key, _)| key.name.clone()).chain(waypoints))));
    }
}

/// Says once what cannot be read: whoever looks only at the log should not have to guess.
fn log_problems(batch: &Batch, known: &[SourceProblem]) {
    for event in &batch.events {
        if let Event::Apply(reading) = event
            && let Content::Rejected { rejection, .. } = &reading.content
        {
            let Rejection { origin, message } = rejection;
            tracing::warn!(object = %reading.key, %origin, message, "object not accepted");
        }
    }
    for problem in batch.problems.iter().filter(|problem| !known.contains(problem)) {
        tracing::warn!(origin = %problem.origin, message = problem.message, "configuration problem");
    }
}

#[cfg(test)]
mod tests;
