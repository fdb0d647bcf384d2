import pytest

from tests.identity.material import DAY, NOON
from tulle.identity.certificates import make_issuer, make_root
from tulle.identity.rotation import (
    Blocker,
    Phase,
    Report,
    RotationError,
    State,
    begin_issuer,
    begin_root,
    blockers,
    finish,
    plan,
    promote,
)
from tulle.model.service import ObjectName

OLD = make_root("root", now=NOON - DAY, lifetime=100 * DAY)
NEW = make_root("root", now=NOON, lifetime=100 * DAY)
OLD_ISSUER = make_issuer("issuer", OLD, now=NOON, lifetime=10 * DAY)
NEW_ISSUER = make_issuer("issuer", NEW, now=NOON, lifetime=10 * DAY)
NEXT_ISSUER = make_issuer("issuer", OLD, now=NOON, lifetime=10 * DAY)
STEADY = State(OLD, OLD_ISSUER)
A, B = ObjectName("shop", "a"), ObjectName("shop", "b")
BOTH = frozenset({A, B})


def test_a_root_rotation_goes_through_three_phases() -> None:
    distributing = begin_root(STEADY, NEW)
    assert distributing == State(OLD, OLD_ISSUER, 0, Phase.DISTRIBUTING, other_root=NEW)

    renewing = promote(distributing, NEW_ISSUER)
    assert renewing == State(NEW, NEW_ISSUER, 1, Phase.RENEWING, other_root=OLD)

    assert finish(renewing) == State(NEW, NEW_ISSUER, 1, Phase.STEADY)


def test_the_bundle_is_both_roots_until_the_end_and_the_same_bytes_in_both_phases() -> None:
    distributing = begin_root(STEADY, NEW)
    renewing = promote(distributing, NEW_ISSUER)

    assert distributing.bundle_pem == (OLD.certificate_pem + NEW.certificate_pem).rstrip()
    assert renewing.bundle_digest == distributing.bundle_digest
    assert finish(renewing).bundle_pem == NEW.certificate_pem.rstrip()


def test_an_issuer_rotation_leaves_the_bundle_alone() -> None:
    renewing = begin_issuer(STEADY, NEXT_ISSUER)

    assert renewing == State(OLD, NEXT_ISSUER, 1, Phase.RENEWING)
    assert renewing.bundle_digest == STEADY.bundle_digest


def test_an_issuer_rotation_may_follow_another_that_stock_proxies_still_hold() -> None:
    assert begin_issuer(begin_issuer(STEADY, NEXT_ISSUER), OLD_ISSUER).epoch == 2


def test_no_other_rotation_begins_while_the_root_is_rotated() -> None:
    for state in (begin_root(STEADY, NEW), promote(begin_root(STEADY, NEW), NEW_ISSUER)):
        with pytest.raises(RotationError):
            begin_root(state, NEW)
        with pytest.raises(RotationError):
            begin_issuer(state, NEXT_ISSUER)


def test_a_step_that_is_not_due_is_refused() -> None:
    with pytest.raises(RotationError):
        promote(STEADY, NEW_ISSUER)
    with pytest.raises(RotationError):
        finish(STEADY)


def test_a_proxy_blocks_distribution_until_it_trusts_both_roots() -> None:
    state = begin_root(STEADY, NEW)
    old = Report(STEADY.bundle_digest, OLD_ISSUER.digest)
    new = Report(state.bundle_digest, OLD_ISSUER.digest)

    assert blockers(state, BOTH, {A: old, B: new}) == (Blocker(A, "does not trust the new root yet"),)
    assert blockers(state, BOTH, {A: new, B: new}) == ()


def test_a_proxy_blocks_renewal_until_its_leaf_is_the_new_issuer_s() -> None:
    state = promote(begin_root(STEADY, NEW), NEW_ISSUER)
    old = Report(state.bundle_digest, OLD_ISSUER.digest)
    new = Report(state.bundle_digest, NEW_ISSUER.digest)

    assert blockers(state, BOTH, {A: new, B: old}) == (Blocker(B, "still uses a leaf of the old issuer"),)
    assert blockers(state, BOTH, {A: new, B: new}) == ()


def test_a_proxy_that_never_reported_blocks_and_one_that_is_gone_does_not() -> None:
    state = begin_root(STEADY, NEW)

    assert [of.pod for of in blockers(state, BOTH, {})] == [A, B]
    assert blockers(state, frozenset(), {A: Report(b"", b"")}) == ()


def test_nothing_blocks_when_nothing_is_going_on() -> None:
    assert blockers(STEADY, BOTH, {}) == ()


def test_the_plan_shows_where_a_rotation_is() -> None:
    assert [step.current for step in plan(STEADY, root=True)] == [False, False, False]
    assert [step.current for step in plan(begin_root(STEADY, NEW), root=True)] == [True, False, False]
    assert [step.current for step in plan(begin_issuer(STEADY, NEXT_ISSUER), root=False)] == [True, False]
