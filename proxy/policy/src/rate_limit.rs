//! How many requests a second a server takes.
//!
//! A bucket is one number, the generic cell rate algorithm's theoretical time of arrival: a
//! request moves it on by the interval of the rate, and is refused where it would then lie
//! further ahead than the burst, which is one second's worth. All shards of a proxy share the
//! buckets, so a limit holds for the proxy as a whole and to the request.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use ahash::RandomState;
use parking_lot::Mutex;
use tulle_api::inbound::{HttpLocalRateLimit, http_local_rate_limit::Limit};
use tulle_core::{Id, Reason, Refusal};

use crate::{
    Invalid, Meta,
    invalid::{each, required},
    wire,
};

/// How many requests a second a server takes, in total and from each client. None is no limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// The object that says so.
    pub meta: Arc<Meta>,
    /// From all clients together.
    pub total: Option<NonZeroU32>,
    /// From each identity; all clients without one are one client.
    pub identity: Option<NonZeroU32>,
    /// In place of `identity`, for some.
    pub overrides: Box<[RateLimitOverride]>,
}

/// A limit for particular clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimitOverride {
    /// The clients.
    pub clients: Box<[Id]>,
    /// Requests a second.
    pub limit: Option<NonZeroU32>,
}

impl RateLimit {
    pub(crate) fn new(wire: HttpLocalRateLimit) -> Result<Self, Invalid> {
        Ok(Self {
            meta: Meta::inbound(wire.metadata)?,
            total: limit(wire.total),
            identity: limit(wire.identity),
            overrides: each("overrides", wire.overrides, |wire| {
                let clients = required(wire.clients, "clients")?.identities;
                Ok(RateLimitOverride {
                    clients: each("identities", clients, |identity| {
                        wire::identity(&identity.name)
                    })?,
                    limit: limit(wire.limit),
                })
            })?,
        })
    }
}

fn limit(wire: Option<Limit>) -> Option<NonZeroU32> {
    NonZeroU32::new(wire?.requests_per_second)
}

/// Identities that have a bucket of their own. A certificate costs something, so it takes an
/// insider to reach this; who comes then shares one bucket with all others that do.
const MAX_IDENTITIES: usize = 10_000;

/// A limit and what has been used of it.
#[derive(Debug)]
pub(crate) struct Limiter {
    meta: Arc<Meta>,
    total: Option<Bucket>,
    overrides: Box<[Option<Bucket>]>,
    /// Which of the overrides holds for a client.
    overridden: HashMap<Id, usize, RandomState>,
    identity: Option<Identities>,
}

#[derive(Debug)]
struct Identities {
    rate: Rate,
    /// When each bucket is full again.
    buckets: Mutex<HashMap<Id, u64, RandomState>>,
    /// All clients without an identity.
    nameless: Bucket,
    /// All who come when there are too many.
    rest: Bucket,
}

/// A request that is over a limit.
#[derive(Debug)]
pub struct Limited {
    /// The label `ratelimit_scope`: `total` or `identity`.
    pub scope: &'static str,
    /// For the client.
    pub refusal: Refusal,
}

impl Limiter {
    pub(crate) fn new(limit: &RateLimit) -> Self {
        let bucket = |limit: Option<NonZeroU32>| limit.map(Bucket::new);
        let mut overridden = HashMap::default();
        for (index, of) in limit.overrides.iter().enumerate() {
            for client in &of.clients {
                overridden.entry(client.clone()).or_insert(index);
            }
        }
        Self {
            meta: limit.meta.clone(),
            total: bucket(limit.total),
            overrides: limit.overrides.iter().map(|of| bucket(of.limit)).collect(),
            overridden,
            identity: limit.identity.map(|limit| Identities {
                rate: Rate::new(limit),
                buckets: Mutex::default(),
                nameless: Bucket::new(limit),
                rest: Bucket::new(limit),
            }),
        }
    }

    /// Take one request off the limits that hold for a client.
    ///
    /// The client's own comes off before the total, so that one which is over its share takes
    /// nothing of the others'; where both are used up, the total is the one that is named.
    pub(crate) fn take(&self, client: Option<&Id>, now: Duration) -> Result<(), Limited> {
        let now = nanos(now);
        if let Some(total) = &self.total {
            total
                .look(now)
                .map_err(|wait| self.limited("total", "total", total.rate, wait))?;
        }
        let overridden = client.and_then(|id| self.overridden.get(id));
        if let Some(index) = overridden {
            if let Some(bucket) = &self.overrides[*index] {
                bucket
                    .take(now)
                    .map_err(|wait| self.limited("identity", "override", bucket.rate, wait))?;
            }
        } else if let Some(identity) = &self.identity {
            identity
                .take(client, now)
                .map_err(|wait| self.limited("identity", "per-identity", identity.rate, wait))?;
        }
        if let Some(total) = &self.total {
            total
                .take(now)
                .map_err(|wait| self.limited("total", "total", total.rate, wait))?;
        }
        Ok(())
    }

    fn limited(&self, scope: &'static str, which: &str, rate: Rate, wait: u64) -> Limited {
        let limit = rate.limit;
        let message = format!("{which} rate limit exceeded: {limit}rps");
        let mut refusal = Refusal::new(Reason::RateLimited, message).by(&self.meta);
        // Rounded up: whoever comes back then is let in, and 0 would mean at once.
        let seconds = wait.div_ceil(nanos(Duration::from_secs(1)));
        refusal.retry_after = Some(u32::try_from(seconds).unwrap_or(u32::MAX).max(1));
        Limited { scope, refusal }
    }
}

impl Identities {
    fn take(&self, client: Option<&Id>, now: u64) -> Result<(), u64> {
        let Some(id) = client else {
            return self.nameless.take(now);
        };
        let mut buckets = self.buckets.lock();
        if let Some(full_at) = buckets.get_mut(id) {
            *full_at = self.rate.after(*full_at, now)?;
            return Ok(());
        }
        if buckets.len() >= MAX_IDENTITIES {
            // A full bucket is like one that was never there.
            buckets.retain(|_, full_at| *full_at > now);
            if buckets.len() >= MAX_IDENTITIES {
                return self.rest.take(now);
            }
        }
        buckets.insert(id.clone(), self.rate.after(0, now)?);
        Ok(())
    }
}

/// So many requests a second, of which as many may come at once.
#[derive(Clone, Copy, Debug)]
struct Rate {
    limit: NonZeroU32,
    interval: u64,
}

impl Rate {
    fn new(limit: NonZeroU32) -> Self {
        let second = nanos(Duration::from_secs(1));
        Self {
            limit,
            interval: second / u64::from(limit.get()),
        }
    }

    /// When a bucket is full again that loses one request more, or how long until it has one.
    fn after(self, full_at: u64, now: u64) -> Result<u64, u64> {
        let after = full_at.max(now).saturating_add(self.interval);
        let burst = self.interval * u64::from(self.limit.get());
        match after.checked_sub(now + burst) {
            None | Some(0) => Ok(after),
            Some(wait) => Err(wait),
        }
    }
}

#[derive(Debug)]
struct Bucket {
    rate: Rate,
    /// In nanoseconds on the callers' clock.
    full_at: AtomicU64,
}

impl Bucket {
    fn new(limit: NonZeroU32) -> Self {
        Self {
            rate: Rate::new(limit),
            full_at: AtomicU64::new(0),
        }
    }

    /// How long until there is one, if there is none.
    fn look(&self, now: u64) -> Result<(), u64> {
        let full_at = self.full_at.load(Relaxed);
        self.rate.after(full_at, now).map(drop)
    }

    fn take(&self, now: u64) -> Result<(), u64> {
        let mut full_at = self.full_at.load(Relaxed);
        loop {
            let after = self.rate.after(full_at, now)?;
            let swapped = self
                .full_at
                .compare_exchange_weak(full_at, after, Relaxed, Relaxed);
            match swapped {
                Ok(_) => return Ok(()),
                Err(meanwhile) => full_at = meanwhile,
            }
        }
    }
}

/// 584 years fit.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limiter(total: u32, identity: u32, overrides: &[(&[&str], u32)]) -> Limiter {
        Limiter::new(&RateLimit {
            meta: Arc::new(Meta::default_named("limit")),
            total: NonZeroU32::new(total),
            identity: NonZeroU32::new(identity),
            overrides: overrides
                .iter()
                .map(|(clients, limit)| RateLimitOverride {
                    clients: clients.iter().map(|name| Id::new(name)).collect(),
                    limit: NonZeroU32::new(*limit),
                })
                .collect(),
        })
    }

    /// How many of so many requests at once are let in.
    fn at_once(limiter: &Limiter, client: Option<&str>, now: Duration) -> usize {
        let id = client.map(Id::new);
        (0..1_000)
            .filter(|_| limiter.take(id.as_ref(), now).is_ok())
            .count()
    }

    #[test]
    fn a_seconds_worth_may_come_at_once_and_no_more() {
        let (limiter, now) = (limiter(30, 0, &[]), Duration::from_secs(5));

        assert_eq!(at_once(&limiter, None, now), 30);
        assert_eq!(at_once(&limiter, None, now + SECOND / 2), 15);
        assert_eq!(at_once(&limiter, None, now + 10 * SECOND), 30);
    }

    #[test]
    fn each_identity_has_its_own_and_the_nameless_share_one() {
        let (limiter, now) = (limiter(0, 7, &[]), Duration::from_secs(5));

        assert_eq!(at_once(&limiter, Some("web"), now), 7);
        assert_eq!(at_once(&limiter, Some("api"), now), 7);
        assert_eq!(at_once(&limiter, None, now), 7);
        assert_eq!(at_once(&limiter, None, now), 0);
    }

    #[test]
    fn an_override_is_shared_by_its_clients_and_replaces_their_own() {
        let overrides: &[(&[&str], u32)] = &[(&["web", "api"], 20), (&["admin"], 0)];
        let (limiter, now) = (limiter(0, 5, overrides), Duration::from_secs(5));

        assert_eq!(at_once(&limiter, Some("web"), now), 20);
        assert_eq!(at_once(&limiter, Some("api"), now), 0);
        assert_eq!(at_once(&limiter, Some("other"), now), 5);
        assert_eq!(at_once(&limiter, Some("admin"), now), 1_000);
    }

    #[test]
    fn a_client_over_its_share_takes_nothing_of_the_total() {
        let (limiter, now) = (limiter(10, 4, &[]), Duration::from_secs(5));

        assert_eq!(at_once(&limiter, Some("greedy"), now), 4);

        assert_eq!(at_once(&limiter, Some("modest"), now), 4);
        assert_eq!(at_once(&limiter, Some("late"), now), 2);
    }

    #[test]
    fn a_refusal_says_which_limit_and_when_to_come_back() {
        let (limiter, now) = (limiter(10, 1, &[]), Duration::from_secs(5));
        limiter.take(None, now).unwrap();

        let over = limiter.take(None, now).unwrap_err();

        assert_eq!(over.scope, "identity");
        assert_eq!(
            over.refusal.message,
            "per-identity rate limit exceeded: 1rps"
        );
        assert_eq!(over.refusal.retry_after, Some(1));
        assert_eq!(over.refusal.resource.as_deref(), Some("default/limit"));
        assert!(limiter.take(None, now + SECOND).is_ok());
    }

    #[test]
    fn names_without_number_share_a_bucket_instead_of_filling_the_memory() {
        let (limiter, now) = (limiter(0, 3, &[]), Duration::from_secs(5));
        for number in 0..MAX_IDENTITIES {
            limiter
                .take(Some(&Id::new(&number.to_string())), now)
                .unwrap();
        }

        assert_eq!(at_once(&limiter, Some("one more"), now), 3);
        assert_eq!(at_once(&limiter, Some("yet another"), now), 0);
        let identities = limiter.identity.as_ref().unwrap();
        assert_eq!(identities.buckets.lock().len(), MAX_IDENTITIES);

        assert_eq!(at_once(&limiter, Some("yet another"), now + 2 * SECOND), 3);
        assert_eq!(identities.buckets.lock().len(), 1);
    }

    #[test]
    fn threads_together_get_what_one_would() {
        let (limiter, now) = (limiter(500, 0, &[]), Duration::from_secs(5));

        let admitted: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| at_once(&limiter, None, now)))
                .collect();
            threads.into_iter().map(|one| one.join().unwrap()).sum()
        });

        assert_eq!(admitted, 500);
    }

    proptest! {
        /// In any stretch of time no more come than the burst and what the rate gives for it,
        /// and never fewer than a bucket that is counted exactly has to give.
        #[test]
        fn no_stretch_of_time_has_more_than_burst_and_rate(
            limit in 1_u32..2_000,
            gaps in prop::collection::vec(0_u64..200_000_000, 1..400),
        ) {
            let limiter = limiter(limit, 0, &[]);
            let start = Duration::ZERO;
            let (mut at, mut admitted, mut refused) = (0_u64, Vec::new(), 0_usize);
            for gap in gaps {
                at += gap;
                match limiter.take(None, start + Duration::from_nanos(at)) {
                    Ok(()) => admitted.push(at),
                    Err(limited) => {
                        refused += 1;
                        let wait = limited.refusal.retry_after.map(u64::from).unwrap_or_default();
                        prop_assert!(wait >= 1);
                    }
                }
            }
            let interval = 1_000_000_000 / u64::from(limit);
            for (first, from) in admitted.iter().enumerate() {
                for (last, to) in admitted.iter().enumerate().skip(first) {
                    let count = (last - first + 1) as u64;
                    prop_assert!(count <= u64::from(limit) + (to - from) / interval + 1);
                }
            }
            if admitted.len() < limit as usize {
                prop_assert_eq!(refused, 0);
            }
        }
    }
}
