"""What the proxy decides, for who asks without a proxy: the compiled policy crate."""

from tulle_engine.engine import (
    Backend,
    ClientDecision,
    ClientPolicy,
    RateLimit,
    Request,
    Resource,
    Retry,
    ServerDecision,
    ServerPolicy,
    Step,
)

__all__ = [
    "Backend",
    "ClientDecision",
    "ClientPolicy",
    "RateLimit",
    "Request",
    "Resource",
    "Retry",
    "ServerDecision",
    "ServerPolicy",
    "Step",
]
