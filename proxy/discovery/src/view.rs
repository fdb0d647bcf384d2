use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

/// The latest value of something that the control plane decides. Reading takes no lock and
/// never waits, on any thread.
///
/// Whoever holds a view keeps its subject watched: drop it when the subject is out of use.
pub struct View<T>(Arc<Cell<T>>);

/// Who may change what a view shows.
pub struct Publisher<T>(Arc<Cell<T>>);

/// How much of a view's history somebody has seen; new ones have seen nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen(u64);

struct Cell<T> {
    value: ArcSwap<T>,
    /// Grows after the value was replaced.
    generation: AtomicU64,
    changed: Notify,
    /// Somebody asked for the subject again.
    wanted: Notify,
}

/// The cache's view and the publisher of the task behind it.
const OWN_HOLDERS: usize = 2;

impl<T> Cell<T> {
    /// Whether anybody but the cache holds a view.
    fn is_held(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) > OWN_HOLDERS
    }
}

/// A view and the means to change it, showing this value at first.
#[must_use]
pub fn view<T>(value: T) -> (Publisher<T>, View<T>) {
    let cell = Arc::new(Cell {
        value: ArcSwap::from_pointee(value),
        generation: AtomicU64::new(1),
        changed: Notify::new(),
        wanted: Notify::new(),
    });
    (Publisher(Arc::clone(&cell)), View(cell))
}

impl<T> Publisher<T> {
    /// Show this from now on and wake whoever waits. Whether it differs from what was shown
    /// is the caller's to decide.
    pub fn publish(&self, value: T) {
        self.0.value.store(Arc::new(value));
        self.0.generation.fetch_add(1, Ordering::Release);
        self.0.changed.notify_waiters();
    }

    /// Wait until somebody asks for the subject again.
    pub(crate) async fn wanted(&self) {
        self.0.wanted.notified().await;
    }

    pub(crate) fn is_held(&self) -> bool {
        self.0.is_held()
    }
}

impl<T> View<T> {
    /// What is known now.
    #[must_use]
    pub fn get(&self) -> Arc<T> {
        self.0.value.load_full()
    }

    /// Grows with every change; cheaper to compare than values.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
    }

    /// Wait until there is something that was not seen yet, and see it. The first call
    /// returns at once. Changes in quick succession are seen as one.
    pub async fn changed(&self, seen: &mut Seen) -> Arc<T> {
        let generation = self.next_generation(seen.0).await;
        *seen = Seen(generation);
        self.get()
    }

    /// Wait for a value from which `pick` makes something.
    pub async fn until<R>(&self, mut pick: impl FnMut(&T) -> Option<R>) -> R {
        let mut seen = Seen::default();
        loop {
            if let Some(picked) = pick(&*self.changed(&mut seen).await) {
                return picked;
            }
        }
    }

    /// Say that the subject is used again. Only where the control plane knew nothing of it does
    /// that matter: it is asked again then, and not before.
    pub fn want(&self) {
        self.0.wanted.notify_one();
    }

    pub(crate) fn is_held(&self) -> bool {
        self.0.is_held()
    }

    /// Wait for another generation than the one that was seen, and return it.
    pub async fn next_generation(&self, seen: u64) -> u64 {
        loop {
            let changed = self.0.changed.notified();
            let generation = self.generation();
            if generation != seen {
                return generation;
            }
            changed.await;
        }
    }
}

impl<T> Clone for View<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: fmt::Debug> fmt::Debug for View<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("View").field(&self.get()).finish()
    }
}

impl<T> fmt::Debug for Publisher<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tokio_test::{assert_pending, assert_ready, task::spawn};

    use super::*;

    #[test]
    fn the_first_look_returns_at_once_and_the_next_waits_for_a_change() {
        let (publisher, view) = view("a");
        let mut seen = Seen::default();
        assert_eq!(*assert_ready!(spawn(view.changed(&mut seen)).poll()), "a");

        let mut waiting = spawn(view.changed(&mut seen));
        assert_pending!(waiting.poll());
        publisher.publish("b");

        assert!(waiting.is_woken());
        assert_eq!(*assert_ready!(waiting.poll()), "b");
    }

    #[test]
    fn a_change_between_two_looks_is_not_lost() {
        let (publisher, view) = view(1);
        let mut seen = Seen::default();
        assert_ready!(spawn(view.changed(&mut seen)).poll());

        publisher.publish(2);
        publisher.publish(3);

        assert_eq!(*assert_ready!(spawn(view.changed(&mut seen)).poll()), 3);
        assert_pending!(spawn(view.changed(&mut seen)).poll());
    }

    #[test]
    fn waiting_for_a_certain_value_passes_over_others() {
        let (publisher, view) = view(0);
        let mut waiting = spawn(view.until(|value| (*value > 1).then_some(*value)));

        assert_pending!(waiting.poll());
        publisher.publish(1);
        assert_pending!(waiting.poll());
        publisher.publish(2);

        assert_eq!(assert_ready!(waiting.poll()), 2);
    }
}
