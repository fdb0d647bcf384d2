"""The mesh's own certificate authority: signs leaves, and replaces its own certificates.

Every change goes through `_become`: stored first, then in force, then told to the proxies.

What `recover` can rely on: a proxy whose leaf has expired still reaches this controller, because the
controller's own proxy certifies over loopback and needs no proof from its clients to let them ask
for a certificate; and a proxy whose *root* has expired still verifies this side, because verifiers
look at an anchor's name and key and not at its dates. So an expired root is renewed under the same
key, and no proxy needs to be told anything out of band. Only a proxy that trusts another key than
ours (a forced rotation left it behind) must be started anew with the current bundle.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

from tulle.identity import certificates, rotation
from tulle.identity.certificates import Authority, Leaf
from tulle.identity.rotation import Blocker, Phase, Report, State
from tulle.identity.store import Store
from tulle.lib.clock import Clock
from tulle.lib.latest import Latest
from tulle.lib.log import logger
from tulle.model.pod import TrustDomain
from tulle.model.service import ObjectName

_log = logger("identity")


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long certificates live."""

    leaf: timedelta = timedelta(hours=24)
    issuer: timedelta = timedelta(days=365)
    root: timedelta = timedelta(days=3650)


class MeshAuthority:
    """`expected` returns the pods whose proxies a rotation has to wait for, None while nobody knows."""

    def __init__(
        self,
        store: Store,
        *,
        trust: TrustDomain,
        lifetimes: Lifetimes,
        clock: Clock,
        expected: Callable[[], frozenset[ObjectName] | None],
    ) -> None:
        self._store = store
        self._trust = trust
        self._lifetimes = lifetimes
        self._clock = clock
        self._expected = expected
        self._reports: dict[ObjectName, Report] = {}
        self.latest: Latest[State] = Latest()
        self._state = store.load() or self._create()
        self._become(self._state)

    @property
    def state(self) -> State:
        """Return what is in force."""
        return self._state

    @property
    def reports(self) -> Mapping[ObjectName, Report]:
        """Return what the proxies said last."""
        return self._reports

    def certify(self, identity: str, request: bytes) -> Leaf:
        """Raises RequestMalformedError, RequestRefusedError or AuthorityExpiredError."""
        key = certificates.check_request(request, identity)
        return certificates.sign_leaf(
            identity,
            key,
            issuer=self._state.issuer,
            root=self._state.root,
            now=self._clock(),
            lifetime=self._lifetimes.leaf,
        )

    def report(self, pod: ObjectName, report: Report) -> None:
        """Take in what a proxy says of itself."""
        self._reports[pod] = report
        self.settle()

    def blockers(self) -> tuple[Blocker, ...]:
        """Return the proxies that hold the current phase."""
        expected = self._expected()
        return rotation.blockers(
            self._state, self._reports.keys() if expected is None else expected, self._reports
        )

    def settle(self) -> None:
        """Move on through every phase that nothing blocks; forget the reports of pods that went."""
        expected = self._expected()
        if expected is None:
            return
        for pod in self._reports.keys() - expected:
            del self._reports[pod]
        while self._state.phase is not Phase.STEADY and not self.blockers():
            self._advance()

    def rotate(self, *, root: bool, force: bool) -> None:
        """Begin a rotation; with `force`, move a running one on past what blocks it.

        Raises RotationError or AuthorityExpiredError.
        """
        if force and self._state.phase is not Phase.STEADY:
            for blocker in self.blockers():
                _log.warning("left behind by a forced rotation", pod=str(blocker.pod), why=blocker.reason)
            self._advance()
        elif root:
            self._become(rotation.begin_root(self._state, self._new_root()))
        else:
            self._become(rotation.begin_issuer(self._state, self._new_issuer(self._state.root)))
        self.settle()

    def renew_issuer_in_time(self) -> None:
        """Replace an issuer in the last third of its life, or past it: under a living root that needs
        nobody's consent."""
        now, issuer, root = self._clock(), self._state.issuer, self._state.root
        due = issuer.expires - now < self._lifetimes.issuer / 3
        if due and self._state.other_root is None and now < root.expires > issuer.expires:
            self.rotate(root=False, force=False)

    def recover(self) -> list[str]:
        """Create anew what has expired and have every proxy renew; return what was done."""
        done: list[str] = []
        root = self._alive(self._state.root, "root", done)
        other = self._alive(self._state.other_root, "second root", done) if self._state.other_root else None
        issuer = self._state.issuer
        if root is not self._state.root or issuer.expires <= self._clock():
            issuer = self._new_issuer(root)
            done.append("issuer created")
        self._become(
            replace(self._state, root=root, other_root=other, issuer=issuer, epoch=self._state.epoch + 1)
        )
        done.append("every proxy is told to renew")
        self.settle()
        return done

    def _alive(self, root: Authority, name: str, done: list[str]) -> Authority:
        if root.expires > self._clock():
            return root
        done.append(f"{name} renewed under the same key")
        return certificates.renew_root(root, now=self._clock(), lifetime=self._lifetimes.root)

    def _advance(self) -> None:
        if self._state.phase is Phase.DISTRIBUTING and self._state.other_root is not None:
            self._become(rotation.promote(self._state, self._new_issuer(self._state.other_root)))
        else:
            self._become(rotation.finish(self._state))

    def _become(self, state: State) -> None:
        self._store.save(state)
        self._state = state
        self.latest.set(state)
        _log.info(
            "authority", phase=state.phase.value, epoch=state.epoch, issuer_expires=str(state.issuer.expires)
        )

    def _create(self) -> State:
        root = self._new_root()
        return State(root, self._new_issuer(root))

    def _new_root(self) -> Authority:
        name = f"root.{self._trust.control_namespace}.{self._trust.domain}"
        return certificates.make_root(name, now=self._clock(), lifetime=self._lifetimes.root)

    def _new_issuer(self, root: Authority) -> Authority:
        name = f"identity.{self._trust.control_namespace}.{self._trust.domain}"
        return certificates.make_issuer(name, root, now=self._clock(), lifetime=self._lifetimes.issuer)
