use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;

use crate::Credentials;

/// The credentials in force, shared by every thread. Reading takes no lock.
#[derive(Clone, Debug, Default)]
pub struct Store {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    current: ArcSwapOption<Credentials>,
    first: Notify,
}

impl Store {
    /// A store without credentials.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What new connections use; absent until the first certificate came.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Credentials>> {
        self.shared.current.load_full()
    }

    /// Use these from now on. Connections that exist keep what they have.
    pub fn set(&self, credentials: Credentials) {
        self.shared.current.store(Some(Arc::new(credentials)));
        self.shared.first.notify_waiters();
    }

    /// Wait for the first credentials.
    pub async fn ready(&self) -> Arc<Credentials> {
        loop {
            let set = self.shared.first.notified();
            if let Some(credentials) = self.current() {
                return credentials;
            }
            set.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::join;

    use super::*;
    use crate::authority::Authority;

    #[tokio::test]
    async fn whoever_waits_gets_the_first_credentials_and_later_ones_are_current() {
        let root = Authority::new();
        let credentials = || Credentials::anonymous(&root.pem).unwrap();
        let store = Store::new();
        assert!(store.current().is_none());

        let (first, ()) = join!(store.ready(), async { store.set(credentials()) });
        let other_thread = store.clone();
        other_thread.set(credentials());

        assert!(!Arc::ptr_eq(&first, &store.ready().await));
        assert!(Arc::ptr_eq(&store.ready().await, &store.current().unwrap()));
    }
}
