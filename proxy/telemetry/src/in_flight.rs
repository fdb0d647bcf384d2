use std::{cell::Cell, rc::Rc};

use tulle_core::{Reason, Refusal};

/// How many requests a half of a shard carries at once.
///
/// Connections are handed to the shards in turn, so each gets an equal part of the proxy's
/// limit: a common count would be a line of memory that all of them write with each request.
#[derive(Debug)]
pub struct InFlight {
    taken: Rc<Cell<usize>>,
    most: usize,
}

impl InFlight {
    /// This shard's part of what the proxy carries.
    #[must_use]
    pub fn new(most: usize, shards: usize) -> Self {
        Self {
            taken: Rc::default(),
            most: most.div_ceil(shards.max(1)),
        }
    }

    /// Take a slot.
    ///
    /// # Errors
    /// `overloaded` where the proxy carries as much as it may.
    pub fn take(&self) -> Result<Slot, Refusal> {
        let taken = self.taken.get();
        if taken >= self.most {
            return Err(Refusal::new(Reason::Overloaded, "service unavailable"));
        }
        self.taken.set(taken + 1);
        Ok(Slot(self.taken.clone()))
    }
}

/// A slot among the requests in flight, given back when it is dropped.
#[derive(Debug)]
pub struct Slot(Rc<Cell<usize>>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_requests_are_in_flight_than_the_shards_part() {
        let in_flight = InFlight::new(3, 2);
        let first = in_flight.take().unwrap();
        let _second = in_flight.take().unwrap();
        assert_eq!(in_flight.take().unwrap_err().reason, Reason::Overloaded);

        drop(first);

        assert!(in_flight.take().is_ok());
    }
}
