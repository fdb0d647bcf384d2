from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tulle.rules.traffic import (
    ACCRUAL,
    ALLOW_HEADERS,
    DEFAULT_RETRY,
    HONOR_RETRY_AFTER,
    MAX_RETRY_AFTER,
    NO_TRAFFIC,
    PENALIZE,
    PENALTY,
    RETRY_GRPC,
    RETRY_HTTP,
    RETRY_LIMIT,
    RETRY_TIMEOUT,
    SUCCESS_RATE,
    TIMEOUT,
    Accrual,
    Penalty,
    Retry,
    SuccessRate,
    Timeouts,
    Traffic,
    read,
)

CONSECUTIVE = f"{ACCRUAL}-consecutive-"
KEYS = [
    *(
        RETRY_HTTP,
        RETRY_GRPC,
        RETRY_LIMIT,
        RETRY_TIMEOUT,
        f"{TIMEOUT}idle",
        ACCRUAL,
        f"{CONSECUTIVE}jitter-ratio",
    ),
    *(f"{SUCCESS_RATE}window", HONOR_RETRY_AFTER, PENALIZE, PENALTY, DEFAULT_RETRY, ALLOW_HEADERS),
]


def second(count: float) -> timedelta:
    return timedelta(seconds=count)


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        ({}, NO_TRAFFIC),
        (
            {RETRY_HTTP: "5xx, gateway-error,404,500-503", RETRY_LIMIT: "0", RETRY_TIMEOUT: "0"},
            Traffic(http_retry=Retry(1, statuses=((500, 599), (502, 504), (404, 404), (500, 503)))),
        ),
        (
            {RETRY_GRPC: "unavailable,cancelled", RETRY_LIMIT: "3", RETRY_TIMEOUT: "300ms"},
            Traffic(
                http_retry=Retry(3, timeout=second(0.3)),
                grpc_retry=Retry(3, codes=("unavailable", "cancelled"), timeout=second(0.3)),
            ),
        ),
        (
            {f"{TIMEOUT}request": "2m", f"{TIMEOUT}response": "0", f"{TIMEOUT}idle": "1d"},
            Traffic(timeouts=Timeouts(request=second(120), idle=timedelta(days=1))),
        ),
        ({ACCRUAL: "consecutive"}, Traffic(accrual=Accrual())),
        (
            {
                ACCRUAL: "unified",
                f"{CONSECUTIVE}max-failures": "0",
                f"{CONSECUTIVE}min-penalty": "5s",
                f"{CONSECUTIVE}max-penalty": "1h",
                f"{CONSECUTIVE}jitter-ratio": "0",
                f"{SUCCESS_RATE}threshold": "0.25",
                f"{SUCCESS_RATE}window": "30s",
                f"{SUCCESS_RATE}min-requests": "20",
                HONOR_RETRY_AFTER: "t",
            },
            Traffic(
                accrual=Accrual(0, second(5), second(3600), 0.0, SuccessRate(0.25, second(30), 20, True))
            ),
        ),
        ({f"{CONSECUTIVE}max-failures": "3"}, NO_TRAFFIC),
        ({PENALIZE: "true"}, Traffic(penalty=Penalty())),
        (
            {PENALIZE: "1", PENALTY: "2s", MAX_RETRY_AFTER: "0"},
            Traffic(penalty=Penalty(second(2), timedelta())),
        ),
        ({PENALIZE: "False", PENALTY: "2s"}, NO_TRAFFIC),
        ({DEFAULT_RETRY: "off", ALLOW_HEADERS: "TRUE"}, Traffic(default_retry=False, allow_headers=True)),
    ],
)
def test_annotations_become_settings(annotations: dict[str, str], expected: Traffic) -> None:
    assert read(annotations) == (expected, ())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (RETRY_HTTP, "600"),
        (RETRY_HTTP, "99"),
        (RETRY_HTTP, "503-500"),
        (RETRY_HTTP, "4xx"),
        (RETRY_HTTP, ""),
        (RETRY_GRPC, "unknown"),
        (RETRY_LIMIT, "65536"),
        (RETRY_LIMIT, "-1"),
        (RETRY_LIMIT, "²"),
        (RETRY_TIMEOUT, "1.5s"),
        (RETRY_TIMEOUT, "1h30m"),
        (RETRY_TIMEOUT, "10"),
        (f"{TIMEOUT}request", "-1s"),
        (f"{TIMEOUT}idle", "999999999999d"),
        (ACCRUAL, "sometimes"),
        (f"{CONSECUTIVE}max-failures", "0"),
        (f"{CONSECUTIVE}max-penalty", "0"),
        (f"{CONSECUTIVE}min-penalty", "2m"),
        (f"{CONSECUTIVE}jitter-ratio", "nan"),
        (f"{CONSECUTIVE}jitter-ratio", "101"),
        (PENALIZE, "yes"),
        (PENALTY, "soon"),
        (DEFAULT_RETRY, "false"),
        (ALLOW_HEADERS, "on"),
    ],
)
def test_a_mistake_is_named_and_voids_its_group(key: str, value: str) -> None:
    with_mode = {ACCRUAL: "consecutive"} if key.startswith(CONSECUTIVE) else {}

    settings, mistakes = read(with_mode | {key: value})

    assert {of for of, _ in mistakes} == {key}
    assert settings == NO_TRAFFIC


@pytest.mark.parametrize(
    ("key", "value"), [("threshold", "1.1"), ("window", "9ms"), ("min-requests", "1000001")]
)
def test_the_success_rate_has_limits(key: str, value: str) -> None:
    settings, mistakes = read({ACCRUAL: "unified", SUCCESS_RATE + key: value})

    assert [of for of, _ in mistakes] == [SUCCESS_RATE + key]
    assert settings == NO_TRAFFIC


def test_a_mistake_leaves_other_groups_alone() -> None:
    settings, _ = read({RETRY_HTTP: "nonsense", f"{TIMEOUT}request": "1s"})

    assert settings == Traffic(timeouts=Timeouts(request=second(1)))


@given(st.dictionaries(st.sampled_from(KEYS), st.text(max_size=12)))
def test_no_text_is_too_odd(annotations: dict[str, str]) -> None:
    _, mistakes = read(annotations)

    assert {key for key, _ in mistakes} <= {*annotations, f"{CONSECUTIVE}min-penalty"}
