//! Which subjects are watched.
//!
//! A subject stays watched after its last use, because what was learnt of it must outlive a
//! control plane that is away just when it is used again. When there are too many, the one
//! that was used least recently goes; one whose view somebody still holds never goes, since
//! that holder would act on something that nobody keeps true any more. So the limit holds
//! for what is idle, and connections bound what is in use.

use std::{collections::HashMap, hash::Hash};

use tokio::task::AbortHandle;

use crate::View;

pub(crate) struct Cache<K, T> {
    limit: usize,
    clock: u64,
    entries: HashMap<K, Entry<T>, ahash::RandomState>,
}

struct Entry<T> {
    view: View<T>,
    used: u64,
    _watch: Watch,
}

/// The task that keeps a view true; it ends with this.
pub(crate) struct Watch(pub(crate) AbortHandle);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<K: Clone + Eq + Hash, T> Cache<K, T> {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            clock: 0,
            entries: HashMap::default(),
        }
    }

    /// The subject's view; `start` begins to watch one that is new.
    pub(crate) fn get(&mut self, key: &K, start: impl FnOnce() -> (View<T>, Watch)) -> View<T> {
        self.clock += 1;
        if let Some(entry) = self.entries.get_mut(key) {
            entry.used = self.clock;
            entry.view.want();
            return entry.view.clone();
        }
        if self.entries.len() >= self.limit {
            self.evict();
        }
        let (view, watch) = start();
        let entry = Entry {
            view: view.clone(),
            used: self.clock,
            _watch: watch,
        };
        self.entries.insert(key.clone(), entry);
        view
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Drop the least recently used of those that nobody holds. A scan: this happens only
    /// when a new subject meets a full cache.
    fn evict(&mut self) {
        let idle = self
            .entries
            .iter()
            .filter(|(_, entry)| !entry.view.is_held());
        let oldest = idle
            .min_by_key(|(_, entry)| entry.used)
            .map(|(key, _)| key.clone());
        if let Some(key) = oldest {
            self.entries.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view;

    fn started(value: u32) -> (View<u32>, Watch) {
        let (publisher, view) = view(value);
        let task = tokio::spawn(async move {
            std::future::pending::<()>().await;
            drop(publisher);
        });
        (view, Watch(task.abort_handle()))
    }

    fn known(cache: &Cache<u32, u32>) -> Vec<u32> {
        let mut keys: Vec<_> = cache.entries.keys().copied().collect();
        keys.sort_unstable();
        keys
    }

    #[tokio::test]
    async fn a_subject_is_watched_once() {
        let mut cache = Cache::new(2);

        cache.get(&1, || started(1));

        cache.get(&1, || unreachable!("it is watched already"));
    }

    #[tokio::test]
    async fn the_least_recently_used_goes_first() {
        let mut cache = Cache::new(2);

        for key in [1, 2, 1, 3] {
            cache.get(&key, || started(key));
        }

        assert_eq!(known(&cache), [1, 3]);
    }

    #[tokio::test]
    async fn what_somebody_holds_is_never_dropped() {
        let mut cache = Cache::new(1);
        let held = cache.get(&1, || started(1));

        cache.get(&2, || started(2));
        assert_eq!(known(&cache), [1, 2]);

        drop(held);
        cache.get(&3, || started(3));
        assert_eq!(known(&cache), [2, 3]);
    }

    #[tokio::test]
    async fn dropping_a_subject_ends_its_task() {
        let mut cache = Cache::new(1);
        let (view, watch) = started(1);
        let task = watch.0.clone();
        cache.get(&1, || (view, watch));

        cache.get(&2, || started(2));
        tokio::task::yield_now().await;

        assert!(task.is_finished());
    }
}
