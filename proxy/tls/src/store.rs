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
