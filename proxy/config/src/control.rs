use std::{fmt, net::IpAddr, time::Duration};

use tulle_core::Id;

use crate::{parse, reader::Reader};

/// A host by name or address, and a port.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// A DNS name, a trailing dot included if it was written, or an address without brackets.
    pub host: String,
    /// Never 0.
    pub port: u16,
}

impl HostPort {
    /// The address, where the host is one.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// Whether this names the machine itself, with no look-up needed.
    #[must_use]
    pub fn is_localhost(&self) -> bool {
        let name = self.host.strip_suffix('.').unwrap_or(&self.host);
        name.eq_ignore_ascii_case("localhost")
    }

    fn is_loopback(&self) -> bool {
        self.is_localhost() || self.ip().is_some_and(|ip| ip.is_loopback())
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Debug for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where one of the control plane's services listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlAddr {
    /// What to connect to; also the `:authority`.
    pub addr: HostPort,
    /// Whom to expect there. Present wherever `loopback` is false.
    pub name: Option<Id>,
    /// On this machine: plaintext, and streams live without limits.
    pub loopback: bool,
}

impl ControlAddr {
    pub(crate) fn read(reader: &mut Reader<'_>, service: &str) -> Option<Self> {
        let addr = reader.required(&format!("{service}_SVC_ADDR"), parse::host_port);
        let loopback = addr.as_ref().is_some_and(HostPort::is_loopback);
        let name_variable = format!("{service}_SVC_NAME");
        let name = reader.text(&name_variable).map(|name| Id::new(name.trim()));
        if name.is_none() && addr.is_some() && !loopback {
            reader.mistake(&name_variable, "is required unless the address is loopback");
        }
        Some(Self {
            addr: addr?,
            name: name.filter(|_| !loopback),
            loopback,
        })
    }
}

/// How long a stream to a control plane elsewhere is trusted to be alive. Absent: for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamLimits {
    /// Until the first message.
    pub initial: Option<Duration>,
    /// Between messages.
    pub idle: Option<Duration>,
    /// Altogether.
    pub lifetime: Option<Duration>,
}

impl StreamLimits {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Self {
        let limits = Self {
            initial: reader.optional("CONTROL_STREAM_INITIAL_TIMEOUT", parse::duration),
            idle: reader.optional("CONTROL_STREAM_IDLE_TIMEOUT", parse::duration),
            lifetime: reader.optional("CONTROL_STREAM_LIFETIME", parse::duration),
        };
        let unset = Duration::MAX;
        let idle = limits.idle.unwrap_or(unset);
        if limits
            .initial
            .is_some_and(|initial| initial > idle.min(limits.lifetime.unwrap_or(unset)))
        {
            let problem = "must not be longer than the idle timeout and the lifetime";
            reader.mistake("CONTROL_STREAM_INITIAL_TIMEOUT", problem);
        }
        if limits
            .lifetime
            .is_some_and(|lifetime| limits.idle.is_some() && idle > lifetime)
        {
            reader.mistake(
                "CONTROL_STREAM_IDLE_TIMEOUT",
                "must not be longer than the lifetime",
            );
        }
        limits
    }
}
