"""ServiceProfiles: upstream's older form of routes, retries, time-outs and splits, named after a service."""

from dataclasses import dataclass
from datetime import timedelta

from tulle.model.objects import Metadata, Position, Raw
from tulle.model.service import ObjectName


@dataclass(frozen=True, slots=True)
class RequestMatch:
    """What is there has to match, all of it; `any_of` is empty where it was not written."""

    path_regex: str | None = None
    method: str | None = None
    all_of: tuple["RequestMatch", ...] = ()
    any_of: tuple["RequestMatch", ...] = ()
    negated: "RequestMatch | None" = None


@dataclass(frozen=True, slots=True)
class ResponseMatch:
    """The same for responses; the bounds are statuses, both included."""

    status: tuple[int, int] | None = None
    all_of: tuple["ResponseMatch", ...] = ()
    any_of: tuple["ResponseMatch", ...] = ()
    negated: "ResponseMatch | None" = None


@dataclass(frozen=True, slots=True)
class ResponseClass:
    """Responses that count as failures, or as successes."""

    condition: ResponseMatch
    is_failure: bool


@dataclass(frozen=True, slots=True)
class ProfileRoute:
    """The first route whose condition holds is a request's."""

    name: str
    condition: RequestMatch
    response_classes: tuple[ResponseClass, ...]
    is_retryable: bool
    timeout: timedelta | None


@dataclass(frozen=True, slots=True)
class RetryBudget:
    """How many retries there may be in addition to `ratio` of the requests of the last `ttl`."""

    ratio: float = 0.2
    min_per_second: int = 10
    ttl: timedelta = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class Override:
    """A share of the traffic to another authority; the weight is in thousandths."""

    authority: str
    weight: int


@dataclass(frozen=True, slots=True)
class ServiceProfile:
    """A profile. Its name is the service's full one; its namespace is the client's or the service's."""

    meta: Metadata
    routes: tuple[ProfileRoute, ...]
    budget: RetryBudget | None
    overrides: tuple[Override, ...]
    raw: Raw
    source: Position

    @property
    def name(self) -> ObjectName:
        """Return what the object is called."""
        return ObjectName(self.meta.namespace, self.meta.name)
