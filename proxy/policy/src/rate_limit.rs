use std::{num::NonZeroU32, sync::Arc};

use tulle_api::inbound::{HttpLocalRateLimit, http_local_rate_limit::Limit};
use tulle_core::Id;

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
