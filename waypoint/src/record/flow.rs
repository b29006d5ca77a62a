//! What passes in one direction of a request.

use std::cell::{Cell, RefCell};

use crate::grpc::MessageCounter;

/// One direction of a request.
#[derive(Debug)]
pub(crate) struct Flow {
    octets: Cell<u64>,
    messages: Option<RefCell<MessageCounter>>,
}

impl Flow {
    pub(super) fn new(is_grpc: bool) -> Self {
        Self { octets: Cell::new(0), messages: is_grpc.then(RefCell::default) }
    }

    /// Counts what was passed on.
    pub(crate) fn passed(&self, piece: &[u8]) {
        self.octets.set(self.octets.get() + piece.len() as u64);
        if let Some(messages) = &self.messages {
            messages.borrow_mut().passed(piece);
        }
    }

    /// Forgets what was passed on: it is sent again, from the beginning.
    pub(crate) fn restart(&self) {
        self.octets.set(0);
        if let Some(messages) = &self.messages {
            messages.take();
        }
    }

    /// It was this much, and is not passed piece by piece.
    pub(super) fn set_octets(&self, octets: u64) {
        self.octets.set(octets);
    }

    pub(crate) fn octets(&self) -> u64 {
        self.octets.get()
    }

    pub(super) fn messages(&self) -> u64 {
        self.messages.as_ref().map_or(0, |messages| messages.borrow().messages())
    }
}
