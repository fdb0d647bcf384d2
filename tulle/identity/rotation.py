"""How an issuer and a trust root are replaced while everything runs.

Pure: states and reports in, states out; the certificates are arguments.

    steady ──begin_issuer──────────────────────────────▶ renewing ──finish──▶ steady
    steady ──begin_root──▶ distributing ──promote──▶ renewing ──finish──▶ steady

distributing: the bundle is old and new root, the old issuer signs. Nobody may be certified under the
new root before *every* proxy trusts it.
renewing: a new issuer signs (under the new root, where there is one) and the epoch grew, so proxies
certify anew at once. The old root stays trusted until *every* leaf is the new issuer's.
steady: one root, one issuer.

A phase ends when no proxy that is expected to be there blocks it. One that never reported blocks,
since nothing is known of it: a stock proxy never reports and is named, so that the operator restarts
it or forces the phase. Each state is stored before it is acted on, so a restarted controller goes on
where it was; reports are not stored, proxies repeat them when they reconnect.
"""

import hashlib
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from enum import Enum

from tulle.identity.certificates import Authority
from tulle.model.service import ObjectName


class Phase(Enum):
    """Where a rotation is."""

    STEADY = "steady"
    DISTRIBUTING = "distributing"
    RENEWING = "renewing"


class RotationError(Exception):
    """The step is not possible in this state."""


@dataclass(frozen=True, slots=True)
class State:
    """`root` is the one that `issuer` is under; `other_root` the incoming or the outgoing one."""

    root: Authority
    issuer: Authority
    epoch: int = 0
    phase: Phase = Phase.STEADY
    other_root: Authority | None = None

    @property
    def bundle_pem(self) -> str:
        """All roots to trust.

        The order depends on the roots alone, since a new order would be a new bundle; no line end at the
        end, since a bundle that came through an environment has none and would differ.
        """
        roots = [self.root] + ([self.other_root] if self.other_root else [])
        return "".join(root.certificate_pem for root in sorted(roots, key=_age)).rstrip()

    @property
    def bundle_digest(self) -> bytes:
        """Return the SHA-256 by which proxies name the bundle."""
        return hashlib.sha256(self.bundle_pem.encode()).digest()


@dataclass(frozen=True, slots=True)
class Report:
    """What a proxy said last about itself."""

    bundle_digest: bytes
    issuer_digest: bytes


@dataclass(frozen=True, slots=True)
class Blocker:
    """A proxy that holds the current phase."""

    pod: ObjectName
    reason: str


@dataclass(frozen=True, slots=True)
class Step:
    """One phase as a plan shows it."""

    title: str
    waits_for: str
    current: bool = False


def begin_issuer(state: State, issuer: Authority) -> State:
    """Let a new issuer under the same root sign from now on."""
    if state.phase is Phase.DISTRIBUTING or state.other_root:
        raise RotationError("the root is being rotated, which replaces the issuer too")
    return replace(state, issuer=issuer, epoch=state.epoch + 1, phase=Phase.RENEWING)


def begin_root(state: State, incoming: Authority) -> State:
    """Have a second root distributed."""
    if state.phase is Phase.DISTRIBUTING or state.other_root:
        raise RotationError("the root is being rotated already")
    return replace(state, phase=Phase.DISTRIBUTING, other_root=incoming)


def promote(state: State, issuer: Authority) -> State:
    """Let the incoming root's `issuer` sign from now on."""
    if state.phase is not Phase.DISTRIBUTING or state.other_root is None:
        raise RotationError("no new root is being distributed")
    return State(state.other_root, issuer, state.epoch + 1, Phase.RENEWING, other_root=state.root)


def finish(state: State) -> State:
    """Drop the old root."""
    if state.phase is not Phase.RENEWING:
        raise RotationError("nothing is being renewed")
    return replace(state, phase=Phase.STEADY, other_root=None)


def blockers(
    state: State, expected: Set[ObjectName], reports: Mapping[ObjectName, Report]
) -> tuple[Blocker, ...]:
    """Return the proxies that hold the current phase, with what they lack."""
    if state.phase is Phase.STEADY:
        return ()
    found = ((pod, _lack(state, reports.get(pod))) for pod in sorted(expected))
    return tuple(Blocker(pod, reason) for pod, reason in found if reason)


def plan(state: State, *, root: bool) -> tuple[Step, ...]:
    """Return the steps of a rotation, from where the state is."""
    distributing = state.phase is Phase.DISTRIBUTING
    renewing = state.phase is Phase.RENEWING
    steps = [
        Step("a new issuer signs, and every proxy renews", "every leaf is the new issuer's", renewing),
        Step("the old root is removed" if root else "the old issuer is forgotten", "nothing"),
    ]
    if root:
        steps.insert(0, Step("old and new root are distributed", "every proxy trusts both", distributing))
    return tuple(steps)


def _lack(state: State, report: Report | None) -> str | None:
    if report is None:
        return "has not reported (a stock proxy never does)"
    if state.phase is Phase.DISTRIBUTING and report.bundle_digest != state.bundle_digest:
        return "does not trust the new root yet"
    if state.phase is Phase.RENEWING and report.issuer_digest != state.issuer.digest:
        return "still uses a leaf of the old issuer"
    return None


def _age(root: Authority) -> tuple[float, bytes]:
    return root.certificate.not_valid_before_utc.timestamp(), root.digest
