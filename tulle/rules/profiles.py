"""Decodes ServiceProfiles. Weights are quantities, of which thousandths are kept."""

import math
import re
from decimal import Decimal

from tulle.model.objects import Metadata
from tulle.model.profile import (
    Override,
    ProfileRoute,
    RequestMatch,
    ResponseClass,
    ResponseMatch,
    RetryBudget,
    ServiceProfile,
)
from tulle.rules.metadata import head
from tulle.rules.schema import Fields, shown

WEIGHT = re.compile(r"([0-9]{1,9}(?:\.[0-9]{0,9})?)([numk]?)")
SCALES = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3}


def service_profile(fields: Fields) -> ServiceProfile:
    """Decode a ServiceProfile."""
    meta = head(fields)
    return fields.need("spec", lambda spec: service_profile_spec(spec, meta, fields))


def service_profile_spec(spec: Fields, meta: Metadata, whole: Fields) -> ServiceProfile:
    """Decode a ServiceProfile's own part."""
    if whole.text("apiVersion", "").endswith("/v1alpha1") and not spec.has("routes"):
        spec.missing("routes", "a list")
    if spec.has("opaquePorts"):
        text = "not acted on: use the annotation config.linkerd.io/opaque-ports of the Service"
        spec.wrong("opaquePorts", text, "warning")
    return ServiceProfile(
        meta=meta,
        routes=spec.each("routes", profile_route),
        budget=spec.inside("retryBudget", retry_budget, None),
        overrides=spec.each("dstOverrides", override),
        raw=whole.raw(),
        source=whole.position,
    )


def profile_route(fields: Fields) -> ProfileRoute:
    """Decode a route."""
    name = fields.need_text("name")
    if fields.has("name") and not name:
        fields.wrong("name", "expected a name, found an empty text")
    return ProfileRoute(
        name=name,
        condition=fields.need("condition", request_match),
        response_classes=fields.each("responseClasses", response_class),
        is_retryable=fields.boolean("isRetryable", False),
        timeout=fields.duration("timeout"),
    )


def request_match(fields: Fields) -> RequestMatch:
    """Decode a condition on requests."""
    something(fields, "pathRegex", "method", "all", "any", "not")
    return RequestMatch(
        path_regex=fields.text("pathRegex", None),
        method=fields.text("method", None),
        all_of=fields.each("all", request_match),
        any_of=fields.each("any", request_match),
        negated=fields.inside("not", request_match, None),
    )


def response_class(fields: Fields) -> ResponseClass:
    """Decode which responses are failures."""
    condition = fields.need("condition", response_match)
    return ResponseClass(condition, fields.boolean("isFailure", False))


def response_match(fields: Fields) -> ResponseMatch:
    """Decode a condition on responses."""
    something(fields, "status", "all", "any", "not")
    return ResponseMatch(
        status=fields.inside("status", status_range, None),
        all_of=fields.each("all", response_match),
        any_of=fields.each("any", response_match),
        negated=fields.inside("not", response_match, None),
    )


def something(fields: Fields, *keys: str) -> None:
    """Report a condition that has none of its parts; it would hold for everything."""
    if not any(fields.has(key) for key in keys):
        fields.missing_one(", ".join(keys[:-1]) + f" or {keys[-1]}")


def status_range(fields: Fields) -> tuple[int, int]:
    """Decode bounds of statuses."""
    something(fields, "min", "max")
    low, high = fields.integer("min", 100, low=100, high=599), fields.integer("max", 599, low=100, high=599)
    if low > high:
        fields.wrong("max", f"expected at least min, {low}, found {high}")
    return low, high


def retry_budget(fields: Fields) -> RetryBudget:
    """Decode how many retries there may be."""
    ttl = fields.duration("ttl")
    if not fields.has("ttl"):
        fields.missing("ttl", "a duration such as 10s")
    if not fields.has("minRetriesPerSecond"):
        fields.missing("minRetriesPerSecond", "a whole number")
    default = RetryBudget()
    return RetryBudget(
        ratio(fields), fields.integer("minRetriesPerSecond", default.min_per_second), ttl or default.ttl
    )


def ratio(fields: Fields) -> float:
    """Decode the share of retries."""
    value = fields.plain("retryRatio")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1000:
        if value is None:
            fields.missing("retryRatio", "a number of at least 0")
        else:
            fields.wrong("retryRatio", f"expected a number from 0 to 1000, found {shown(value)}")
        return RetryBudget().ratio
    return float(value)


def override(fields: Fields) -> Override:
    """Decode a share of the traffic."""
    return Override(fields.need_text("authority"), weight(fields))


def weight(fields: Fields) -> int:
    """Decode a weight, a quantity, in thousandths: rounded up, as Kubernetes does."""
    value = fields.plain("weight")
    match = None if isinstance(value, bool) else WEIGHT.fullmatch(str(value))
    if match is None:
        if value is None:
            fields.missing("weight", "a quantity such as 500m or 1")
        else:
            fields.wrong("weight", f"expected a quantity such as 500m or 1, found {shown(value)}")
        return 0
    return math.ceil(Decimal(match[1]).scaleb(SCALES[match[2]] + 3))
