//! The way of a change: batch -> inputs -> translation -> publication.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Instant;

use tokio::sync::watch;

use crate::ca::tokens::NodeTokens;
use crate::inputs::Inputs;
use crate::objects::{Kind, KnownKind};
use crate::publish::Publisher;
use crate::source::Batch;
use crate::tokens::TokenFiles;
use crate::translate::{Settings, translate};

/// Everything that a change runs through.
#[derive(Debug)]
pub struct Pipeline {
    inputs: Inputs,
    settings: Settings,
    token_files: TokenFiles,
    tokens: watch::Sender<Arc<NodeTokens>>,
    publisher: Publisher,
}

impl Pipeline {
    /// A pipeline with nothing in it.
    pub fn new(
        settings: Settings,
        token_files: TokenFiles,
        tokens: watch::Sender<Arc<NodeTokens>>,
        publisher: Publisher,
    ) -> Self {
        Self { inputs: Inputs::default(), settings, token_files, tokens, publisher }
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
        self.inputs.apply(batch);
        let translated = translate(&self.inputs, &self.settings);
        let nodes = self
            .inputs
            .entries()
            .filter(|(key, entry)| key.kind == Kind::Known(KnownKind::Node) && entry.object().is_some());
        self.tokens.send_replace(Arc::new(self.token_files.of(nodes.map(|(key, _)| key.name.clone()))));
        let (workloads, services, policies) =
            (translated.workloads.len(), translated.services.len(), translated.policies.len());
        self.publisher.publish(self.inputs.clone(), translated);
        let elapsed = started.elapsed();
        metrics::counter!("ambit_control_generations_total").increment(1);
        metrics::gauge!("ambit_control_translation_seconds").set(elapsed.as_secs_f64());
        tracing::info!(events, workloads, services, policies, ?elapsed, "configuration published");
    }
}
