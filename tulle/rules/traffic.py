"""What the traffic annotations of Services, EgressNetworks, routes and namespaces say.

Pure: `read` takes an object's annotations and returns settings, and every mistake in them. As upstream has it, the
annotations form groups (retries, time-outs, breaker, load): one bad value voids its group, since half of a time-out
setting may be worse than none. On a route such a value is refused at admission, on a Service it is reported.

A duration is a whole number with one unit, or 0; zero means that nothing is set.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

RETRY_HTTP = "retry.linkerd.io/http"
RETRY_GRPC = "retry.linkerd.io/grpc"
RETRY_LIMIT = "retry.linkerd.io/limit"
RETRY_TIMEOUT = "retry.linkerd.io/timeout"
TIMEOUT = "timeout.linkerd.io/"
ACCRUAL = "balancer.linkerd.io/failure-accrual"
SUCCESS_RATE = "balancer.alpha.linkerd.io/failure-accrual-success-rate-"
HONOR_RETRY_AFTER = "balancer.alpha.linkerd.io/failure-accrual-honor-retry-after"
PENALIZE = "balancer.alpha.linkerd.io/penalize-failures"
PENALTY = "balancer.alpha.linkerd.io/load-biaser-penalty"
MAX_RETRY_AFTER = "balancer.alpha.linkerd.io/load-biaser-max-retry-after"
DEFAULT_RETRY = "retry.tulle.dev/default"
ALLOW_HEADERS = "policy.tulle.dev/allow-l5d-request-headers"
"""Upstream has this as a setting of its controller, for the whole cluster."""

_UNITS = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_DURATION = re.compile(r"(?P<number>\d{1,12})(?P<unit>ms|s|m|h|d)", re.ASCII)
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_STATUS_NAMES = {"5xx": (500, 599), "gateway-error": (502, 504)}
_GRPC_CODES = ("cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable")
_LONGEST = timedelta(days=365 * 100)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Retry:
    """How often, on which statuses (bounds included) or gRPC codes, and how long a try may wait for headers."""

    limit: int = 1
    statuses: tuple[tuple[int, int], ...] = ()
    codes: tuple[str, ...] = ()
    timeout: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Timeouts:
    """None is none."""

    request: timedelta | None = None
    response: timedelta | None = None
    idle: timedelta | None = None


NO_TIMEOUTS = Timeouts()


@dataclass(frozen=True, slots=True)
class SuccessRate:
    """The unified breaker's other half: below `threshold` over `window` an endpoint is left out; 0 is off."""

    threshold: float = 0.8
    window: timedelta = timedelta(seconds=10)
    min_requests: int = 5
    honor_retry_after: bool = False


@dataclass(frozen=True, slots=True)
class Accrual:
    """When an endpoint is left out, and for how long; `success_rate` makes it the unified breaker."""

    max_failures: int = 7
    min_penalty: timedelta = timedelta(seconds=1)
    max_penalty: timedelta = timedelta(minutes=1)
    jitter_ratio: float = 0.5
    success_rate: SuccessRate | None = None


@dataclass(frozen=True, slots=True)
class Penalty:
    """What a failure counts as in the balancer's measure of latency."""

    penalty: timedelta = timedelta(seconds=5)
    max_retry_after: timedelta = timedelta(seconds=300)


@dataclass(frozen=True, slots=True)
class Traffic:
    """One object's settings; `default_retry` and `allow_headers` are None where it says nothing."""

    http_retry: Retry | None = None
    grpc_retry: Retry | None = None
    timeouts: Timeouts = NO_TIMEOUTS
    accrual: Accrual | None = None
    penalty: Penalty | None = None
    default_retry: bool | None = None
    allow_headers: bool | None = None


NO_TRAFFIC = Traffic()


class _Mistake(ValueError):
    pass


def read(annotations: Mapping[str, str]) -> tuple[Traffic, tuple[tuple[str, str], ...]]:
    """Return the settings, and each mistake as the annotation's key and what is wrong with its value."""
    found = _Reader(annotations)
    traffic = Traffic(
        http_retry=found.group(lambda: _retry(found, http=True), None),
        grpc_retry=found.group(lambda: _retry(found, http=False), None),
        timeouts=found.group(lambda: _timeouts(found), NO_TIMEOUTS),
        accrual=found.group(lambda: _accrual(found), None),
        penalty=found.group(lambda: _penalty(found), None),
        default_retry=found.group(lambda: found.take(DEFAULT_RETRY, _on_or_off, None), None),
        allow_headers=found.group(lambda: found.take(ALLOW_HEADERS, _bool, None), None),
    )
    return traffic, tuple(dict.fromkeys(found.mistakes))


class _Reader:
    def __init__(self, annotations: Mapping[str, str]) -> None:
        self._annotations = annotations
        self.mistakes: list[tuple[str, str]] = []

    def group(self, read: Callable[[], T], void: T) -> T:
        before = len(self.mistakes)
        value = read()
        return value if len(self.mistakes) == before else void

    def take(self, key: str, parse: Callable[[str], T], default: T) -> T:
        text = self._annotations.get(key)
        if text is None:
            return default
        try:
            return parse(text.strip())
        except _Mistake as error:
            self.mistakes.append((key, f"{text!r} is not {error}"))
            return default

    def has(self, key: str) -> bool:
        return key in self._annotations

    def wrong(self, key: str, text: str) -> None:
        self.mistakes.append((key, text))


def _retry(found: _Reader, *, http: bool) -> Retry | None:
    default = Retry()
    statuses = found.take(RETRY_HTTP, _statuses, default.statuses) if http else default.statuses
    codes = default.codes if http else found.take(RETRY_GRPC, _codes, default.codes)
    limit = found.take(RETRY_LIMIT, _uint(16), 0)
    timeout = found.take(RETRY_TIMEOUT, _duration, None)
    conditions = found.has(RETRY_HTTP if http else RETRY_GRPC)
    return Retry(limit or 1, statuses, codes, timeout) if conditions or limit or timeout else None


def _timeouts(found: _Reader) -> Timeouts:
    return Timeouts(
        **{name: found.take(TIMEOUT + name, _duration, None) for name in ("request", "response", "idle")}
    )


def _accrual(found: _Reader) -> Accrual | None:
    mode = found.take(ACCRUAL, _mode, None)
    if mode is None:
        return None
    default, prefix = Accrual(), f"{ACCRUAL}-consecutive-"
    accrual = Accrual(
        max_failures=found.take(f"{prefix}max-failures", _uint(32), default.max_failures),
        min_penalty=found.take(f"{prefix}min-penalty", _span, default.min_penalty),
        max_penalty=found.take(f"{prefix}max-penalty", _span, default.max_penalty),
        jitter_ratio=found.take(f"{prefix}jitter-ratio", _float(100), default.jitter_ratio),
        success_rate=_success_rate(found) if mode == "unified" else None,
    )
    if mode == "consecutive" and not accrual.max_failures:
        found.wrong(f"{prefix}max-failures", "0 would leave out every endpoint; the least is 1")
    if not accrual.max_penalty:
        found.wrong(f"{prefix}max-penalty", "it has to be longer than 0")
    elif accrual.min_penalty > accrual.max_penalty:
        found.wrong(f"{prefix}min-penalty", f"it is longer than {prefix}max-penalty")
    return accrual


def _success_rate(found: _Reader) -> SuccessRate:
    default = SuccessRate()
    rate = SuccessRate(
        threshold=found.take(f"{SUCCESS_RATE}threshold", _float(1), default.threshold),
        window=found.take(f"{SUCCESS_RATE}window", _span, default.window),
        min_requests=found.take(f"{SUCCESS_RATE}min-requests", _uint(32), default.min_requests),
        honor_retry_after=found.take(HONOR_RETRY_AFTER, _bool, default.honor_retry_after),
    )
    if rate.window < timedelta(milliseconds=10):
        found.wrong(f"{SUCCESS_RATE}window", "the least is 10ms")
    if rate.min_requests > 1_000_000:
        found.wrong(f"{SUCCESS_RATE}min-requests", "the most is 1000000")
    return rate


def _penalty(found: _Reader) -> Penalty | None:
    default = Penalty()
    penalty = Penalty(
        found.take(PENALTY, _span, default.penalty),
        found.take(MAX_RETRY_AFTER, _span, default.max_retry_after),
    )
    return penalty if found.take(PENALIZE, _bool, False) else None


def _duration(text: str) -> timedelta | None:
    return _span(text) or None


def _span(text: str) -> timedelta:
    if text == "0":
        return timedelta()
    match = _DURATION.fullmatch(text)
    if match is None:
        raise _Mistake("a whole number with a unit, such as 300ms, 10s, 5m, 1h or 1d")
    try:
        value = timedelta(**{_UNITS[match["unit"]]: int(match["number"])})
    except OverflowError:
        value = _LONGEST * 2
    if value > _LONGEST:
        raise _Mistake("a duration below a hundred years")
    return value


def _statuses(text: str) -> tuple[tuple[int, int], ...]:
    return tuple(_status(item.strip()) for item in text.split(","))


def _status(item: str) -> tuple[int, int]:
    if item in _STATUS_NAMES:
        return _STATUS_NAMES[item]
    first, dash, last = item.partition("-")
    if not all(
        part.isascii() and part.isdigit() and len(part) == 3 for part in (first, last if dash else first)
    ):
        raise _Mistake(f"a list of statuses, ranges such as 500-503, 5xx and gateway-error ({item!r})")
    start, end = int(first), int(last if dash else first)
    if not 100 <= start <= end <= 599:
        raise _Mistake(f"a list of statuses between 100 and 599 ({item!r})")
    return start, end


def _codes(text: str) -> tuple[str, ...]:
    codes = tuple(item.strip().lower() for item in text.split(","))
    if unknown := [code for code in codes if code not in _GRPC_CODES]:
        raise _Mistake(f"a list of {', '.join(_GRPC_CODES)} ({unknown[0]!r})")
    return codes


def _mode(text: str) -> str:
    if text not in ("consecutive", "unified"):
        raise _Mistake("consecutive or unified")
    return text


def _on_or_off(text: str) -> bool:
    if text not in ("on", "off"):
        raise _Mistake("on or off")
    return text == "on"


def _bool(text: str) -> bool:
    if text not in _TRUE | _FALSE:
        raise _Mistake("true or false")
    return text in _TRUE


def _uint(bits: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) < 1 << bits):
            raise _Mistake(f"a whole number below {1 << bits}")
        return int(text)

    return parse


def _float(most: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 <= value <= most:
            raise _Mistake(f"a number from 0 to {most:g}")
        return value

    return parse
