use parking_lot::Mutex;
use rustls::{
    NamedGroup,
    client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue},
    pki_types::ServerName,
};

/// Tickets kept for one endpoint. Each is used once and each connection brings new ones, so
/// this is how many connections can be resumed at the same time.
const TICKETS: usize = 4;

/// The sessions of one endpoint: its server name is always the same one, and other replicas
/// of the service could not read its tickets.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    tickets: Mutex<Vec<Tls13ClientSessionValue>>,
}

impl Sessions {
    pub(crate) fn clear(&self) {
        self.tickets.lock().clear();
    }
}

impl ClientSessionStore for Sessions {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    /// Nothing is remembered: the first group, hybrid post-quantum, is what every proxy takes.
    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        let mut tickets = self.tickets.lock();
        if tickets.len() == TICKETS {
            tickets.remove(0);
        }
        tickets.push(ticket);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.tickets.lock().pop()
    }
}
