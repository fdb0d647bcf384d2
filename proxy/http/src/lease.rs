use std::{cell::Cell, rc::Rc};

/// Counts as one request in flight for as long as it lives.
#[derive(Debug)]
pub(crate) struct Lease(Rc<Cell<usize>>);

impl Lease {
    pub(crate) fn new(in_flight: &Rc<Cell<usize>>) -> Self {
        in_flight.set(in_flight.get() + 1);
        Self(Rc::clone(in_flight))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
