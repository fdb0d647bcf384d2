//! Where a rule sends what it matched.
//!
//! Two backends with equal contents are equal values: whoever builds balancers keeps one for
//! as long as any rule has an equal backend, so that an update that changes something else
//! loses no connection and no load estimate.

use std::{sync::Arc, time::Duration};

use tulle_api::outbound;
use tulle_core::Endpoint;

use crate::{
    Invalid, Meta, endpoint_from_proto,
    invalid::{At, required},
    wire,
};

/// Something that traffic can be sent to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Backend {
    /// The object behind it.
    pub meta: Arc<Meta>,
    /// How to reach it.
    pub kind: BackendKind,
}

/// How a backend is reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BackendKind {
    /// One address.
    Forward(Endpoint),
    /// The endpoints of a name.
    Balance {
        /// What to ask the control plane for.
        path: Arc<str>,
        /// How to compare them.
        ewma: Ewma,
    },
    /// Not at all: what it names does not exist.
    Fail,
}

/// The parameters of an endpoint's load estimate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ewma {
    /// The round trip time to begin with.
    pub rtt: Duration,
    /// The time constant of the decay.
    pub decay: Duration,
    /// What a failed response counts as, where that is not what it took.
    pub penalty: Option<Penalty>,
}

/// What a failed response does to the load estimate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Penalty {
    /// The least that it counts as.
    pub penalty: Duration,
    /// The longest hint of the server to come back later that is believed.
    pub max_retry_after: Duration,
    /// The time constant of the decay after a failure.
    pub decay: Duration,
}

impl Default for Ewma {
    fn default() -> Self {
        Self {
            rtt: Duration::from_millis(30),
            decay: Duration::from_secs(10),
            penalty: None,
        }
    }
}

impl Backend {
    pub(crate) fn new(wire: outbound::Backend) -> Result<Arc<Self>, Invalid> {
        use outbound::backend::Kind;
        let meta = Meta::outbound(wire.metadata)?;
        // Its values are the proxy's own settings; the wire wants it to be there.
        let queue = required(wire.queue, "queue")?;
        wire::duration(required(queue.failfast_timeout, "failfast_timeout")?).at("queue")?;
        let kind = match wire.kind {
            None => BackendKind::Fail,
            Some(Kind::Forward(addr)) => {
                let endpoint = endpoint_from_proto(&addr, &std::collections::HashMap::new());
                BackendKind::Forward(required(endpoint, "the address to forward to")?)
            }
            Some(Kind::Balancer(balancer)) => balance(balancer).at("balancer")?,
        };
        Ok(Arc::new(Self { meta, kind }))
    }
}

fn balance(wire: outbound::backend::BalanceP2c) -> Result<BackendKind, Invalid> {
    use outbound::backend::{balance_p2c::Load, endpoint_discovery::Kind};
    let discovery = required(wire.discovery, "discovery")?;
    let Kind::Dst(dst) = required(discovery.kind, "the kind of the discovery")?;
    let path = Some(dst.path).filter(|path| !path.is_empty());
    let ewma = match required(wire.load, "load")? {
        Load::PeakEwma(load) => Ewma {
            rtt: wire::duration(required(load.default_rtt, "default_rtt")?)?,
            decay: wire::duration(required(load.decay, "decay")?)?,
            penalty: None,
        },
        Load::PenaltyPeakEwma(load) => {
            let or = |wire: Option<_>, default: Duration| wire.map_or(Ok(default), wire::duration);
            let default = Ewma::default();
            Ewma {
                rtt: or(load.default_rtt, default.rtt)?,
                decay: or(load.decay, default.decay)?,
                penalty: Some(Penalty {
                    penalty: or(load.penalty, Duration::from_secs(5))?,
                    max_retry_after: or(load.max_retry_after, Duration::from_mins(5))?,
                    decay: or(load.penalty_decay, default.decay)?,
                }),
            }
        }
    };
    Ok(BackendKind::Balance {
        path: required(path, "path")?.into(),
        ewma,
    })
}

/// A backend of a rule, and what is done to requests that go there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteBackend<F> {
    /// The backend.
    pub backend: Arc<Backend>,
    /// Run after the rule's own.
    pub filters: Box<[F]>,
}

/// How a rule chooses among its backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Distribution<F> {
    /// There is none.
    Empty,
    /// The first that is available. Never empty.
    First(Box<[RouteBackend<F>]>),
    /// One of those that are available, at random by weight. Never empty, and no weight is 0
    /// but beside others that are not.
    Random(Box<[(RouteBackend<F>, u32)]>),
}

impl<F> Distribution<F> {
    /// One backend, always.
    #[must_use]
    pub fn only(backend: Arc<Backend>) -> Self {
        Self::First(Box::new([RouteBackend {
            backend,
            filters: Box::default(),
        }]))
    }

    pub(crate) fn first(backends: Box<[RouteBackend<F>]>) -> Result<Self, Invalid> {
        if backends.is_empty() {
            return Err(Invalid::new("backends is empty"));
        }
        Ok(Self::First(backends))
    }

    pub(crate) fn random(mut backends: Box<[(RouteBackend<F>, u32)]>) -> Result<Self, Invalid> {
        match &mut *backends {
            [] => return Err(Invalid::new("backends is empty")),
            // A lone backend is used whatever its weight.
            [(_, weight)] => *weight = (*weight).max(1),
            all if all.iter().all(|(_, weight)| *weight == 0) => return Ok(Self::Empty),
            _ => {}
        }
        Ok(Self::Random(backends))
    }

    /// All backends, in order.
    pub fn backends(&self) -> impl Iterator<Item = &RouteBackend<F>> {
        let (first, random): (&[_], &[_]) = match self {
            Self::Empty => (&[], &[]),
            Self::First(backends) => (backends, &[]),
            Self::Random(backends) => (&[], backends),
        };
        first
            .iter()
            .chain(random.iter().map(|(backend, _)| backend))
    }

    /// The backend for one request; none where none is available. `random` is uniformly
    /// distributed.
    pub fn pick(
        &self,
        random: u64,
        available: impl Fn(&RouteBackend<F>) -> bool,
    ) -> Option<&RouteBackend<F>> {
        let Self::Random(backends) = self else {
            return self.backends().find(|backend| available(backend));
        };
        if let [(only, _)] = &**backends {
            return available(only).then_some(only);
        }
        let usable = || {
            backends
                .iter()
                .filter(|(backend, weight)| *weight > 0 && available(backend))
        };
        let total: u64 = usable().map(|(_, weight)| u64::from(*weight)).sum();
        let mut at = random.checked_rem(total)?;
        let mut chosen = None;
        for (backend, weight) in usable() {
            // Kept for the case that fewer are available now than a moment ago.
            chosen = Some(backend);
            match at.checked_sub(u64::from(*weight)) {
                Some(rest) => at = rest,
                None => break,
            }
        }
        chosen
    }
}

/// How long to wait between two tries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// After the first.
    pub min: Duration,
    /// At the most.
    pub max: Duration,
    /// The part of the wait that is added at random, at the most.
    pub jitter: f32,
}

impl Backoff {
    pub(crate) fn new(wire: outbound::ExponentialBackoff) -> Result<Self, Invalid> {
        let backoff = Self {
            min: wire::duration(required(wire.min_backoff, "min_backoff")?)?,
            max: wire::duration(required(wire.max_backoff, "max_backoff")?)?,
            jitter: wire.jitter_ratio,
        };
        if backoff.max.is_zero() || backoff.min > backoff.max {
            return Err(Invalid::new("a backoff wants 0 < max and min ≤ max"));
        }
        if !(0.0..=100.0).contains(&backoff.jitter) {
            return Err(Invalid::new("a backoff's jitter is between 0 and 100"));
        }
        Ok(backoff)
    }
}

/// When an endpoint is left out for failing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FailureAccrual {
    /// After that many failures in a row.
    Consecutive {
        /// So many.
        max_failures: u32,
        /// How long it stays out.
        backoff: Backoff,
    },
    /// After failures in a row, or below a rate of success.
    Unified {
        /// Between 0 and 1; 0 is never.
        success_rate_threshold: f64,
        /// The window of the rate.
        decay: Duration,
        /// Fewer in the window say nothing.
        min_requests: u32,
        /// 0 is never.
        max_consecutive_failures: u32,
        /// How long it stays out.
        backoff: Backoff,
        /// Whether a server that names a time to come back is left alone until then, within the
        /// longest back-off.
        respect_retry_after: bool,
    },
}

impl FailureAccrual {
    pub(crate) fn new(wire: outbound::FailureAccrual) -> Result<Self, Invalid> {
        use outbound::failure_accrual::Kind;
        match required(wire.kind, "the kind of the failure accrual")? {
            Kind::ConsecutiveFailures(wire) => Ok(Self::Consecutive {
                max_failures: wire.max_failures,
                backoff: Backoff::new(required(wire.backoff, "backoff")?)?,
            }),
            Kind::Unified(wire) => {
                let decay = wire.decay.map_or(Ok(Duration::ZERO), wire::duration)?;
                let threshold = wire.success_rate_threshold;
                if !(0.0..=1.0).contains(&threshold) {
                    return Err(Invalid::new("success_rate_threshold is between 0 and 1"));
                }
                if threshold > 0.0 && decay < Duration::from_millis(10) {
                    return Err(Invalid::new("decay is at least 10 ms"));
                }
                if wire.min_requests > 1_000_000 {
                    return Err(Invalid::new("min_requests is at most 1,000,000"));
                }
                let backoff = required(wire.backoff, "backoff")?;
                Ok(Self::Unified {
                    success_rate_threshold: threshold,
                    decay,
                    min_requests: wire.min_requests,
                    max_consecutive_failures: wire.max_consecutive_failures,
                    respect_retry_after: backoff.respect_retry_after_hint,
                    backoff: Backoff::new(backoff)?,
                })
            }
        }
    }
}
