"""ServiceProfiles as wire messages.

A proxy takes a profile with routes or overrides before the policy of the same service, and the first route whose
condition holds is a request's. It drops what it finds invalid without a word (a budget out of range would mean no
retries at all), so nothing that is invalid is sent.
"""

from collections.abc import Iterable
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration

from tulle.model.authority import AuthorityError, ServiceAuthority, parse
from tulle.model.profile import (
    Override,
    ProfileRoute,
    RequestMatch,
    ResponseMatch,
    RetryBudget,
    ServiceProfile,
)
from tulle.wire import destination_pb2 as wire
from tulle.wire import http_types_pb2, meta_pb2

GROUP = "linkerd.io"
WEIGHT_PER_THOUSANDTH = 10
_SHORTEST_TTL, _LONGEST_TTL = timedelta(seconds=1), timedelta(seconds=60)
_GREATEST_RATIO = 1000
_METHODS = frozenset(http_types_pb2.HttpMethod.Registered.keys())


def write(profile: ServiceProfile, message: wire.DestinationProfile, *, port: int, domain: str) -> None:
    """Add what the profile says to the message about its service."""
    message.routes.extend(map(_route, profile.routes))
    message.retry_budget.CopyFrom(budget(profile.budget or RetryBudget()))
    message.dst_overrides.extend(_overrides(profile.overrides, port, domain))
    resource = meta_pb2.Resource(
        group=GROUP, kind="ServiceProfile", name=profile.meta.name, namespace=profile.meta.namespace
    )
    message.profile_ref.resource.CopyFrom(resource)


def budget(of: RetryBudget) -> wire.RetryBudget:
    """Translate a budget, within the limits of what proxies take."""
    ttl = Duration()
    ttl.FromTimedelta(min(max(of.ttl, _SHORTEST_TTL), _LONGEST_TTL))
    return wire.RetryBudget(
        retry_ratio=min(of.ratio, _GREATEST_RATIO), min_retries_per_second=of.min_per_second, ttl=ttl
    )


def _route(of: ProfileRoute) -> wire.Route:
    message = wire.Route(
        condition=_request(of.condition),
        response_classes=[
            wire.ResponseClass(condition=_response(each.condition), is_failure=each.is_failure)
            for each in of.response_classes
        ],
        metrics_labels={"route": of.name},
        is_retryable=of.is_retryable,
    )
    if of.timeout:
        message.timeout.FromTimedelta(of.timeout)
    return message


def _request(of: RequestMatch) -> wire.RequestMatch:
    kind = wire.RequestMatch
    parts: list[wire.RequestMatch] = []
    if of.path_regex is not None:
        parts.append(kind(path=wire.PathMatch(regex=of.path_regex)))
    if of.method is not None:
        parts.append(kind(method=_method(of.method)))
    if of.all_of:
        parts.append(kind(all=kind.Seq(matches=map(_request, of.all_of))))
    if of.any_of:
        parts.append(kind(any=kind.Seq(matches=map(_request, of.any_of))))
    if of.negated is not None:
        negation = kind()
        # The field's name is a word of Python's.
        getattr(negation, "not").CopyFrom(_request(of.negated))
        parts.append(negation)
    return parts[0] if len(parts) == 1 else kind(all=kind.Seq(matches=parts))


def _response(of: ResponseMatch) -> wire.ResponseMatch:
    kind = wire.ResponseMatch
    parts: list[wire.ResponseMatch] = []
    if of.status is not None:
        least, most = of.status
        parts.append(kind(status=wire.HttpStatusRange(min=least, max=most)))
    if of.all_of:
        parts.append(kind(all=kind.Seq(matches=map(_response, of.all_of))))
    if of.any_of:
        parts.append(kind(any=kind.Seq(matches=map(_response, of.any_of))))
    if of.negated is not None:
        negation = kind()
        getattr(negation, "not").CopyFrom(_response(of.negated))
        parts.append(negation)
    return parts[0] if len(parts) == 1 else kind(all=kind.Seq(matches=parts))


def _method(name: str) -> http_types_pb2.HttpMethod:
    if name in _METHODS:
        return http_types_pb2.HttpMethod(registered=name)
    return http_types_pb2.HttpMethod(unregistered=name)


def _overrides(overrides: Iterable[Override], port: int, domain: str) -> Iterable[wire.WeightedDst]:
    for of in overrides:
        bare = of.authority.removesuffix(".")
        authority = bare if ":" in bare else f"{bare}:{port}"
        yield wire.WeightedDst(
            authority=authority,
            weight=of.weight * WEIGHT_PER_THOUSANDTH,
            backend_ref=_backend(authority, domain),
        )


def _backend(authority: str, domain: str) -> meta_pb2.Metadata | None:
    try:
        found = parse(authority, domain)
    except AuthorityError:
        return None
    if not isinstance(found, ServiceAuthority):
        return None
    name = found.service
    resource = meta_pb2.Resource(
        group="core", kind="Service", name=name.name, namespace=name.namespace, port=found.port
    )
    return meta_pb2.Metadata(resource=resource)
