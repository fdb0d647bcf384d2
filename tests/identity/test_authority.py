from datetime import timedelta
from pathlib import Path

import pytest

from tests.identity.material import DAY, WEB, SteppingClock, request
from tulle.identity.authority import Lifetimes, MeshAuthority
from tulle.identity.certificates import AuthorityExpiredError
from tulle.identity.rotation import Phase, Report
from tulle.identity.store import Store
from tulle.model.pod import TrustDomain
from tulle.model.service import ObjectName

A, B = ObjectName("shop", "a"), ObjectName("shop", "b")
LIFETIMES = Lifetimes(leaf=DAY, issuer=30 * DAY, root=300 * DAY)


class Mesh:
    """An authority whose controller can be restarted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = SteppingClock()
        self.pods: frozenset[ObjectName] | None = frozenset({A, B})
        self.authority = self.start()

    def start(self) -> MeshAuthority:
        self.authority = MeshAuthority(
            Store(self.folder),
            trust=TrustDomain(),
            lifetimes=LIFETIMES,
            clock=self.clock,
            expected=lambda: self.pods,
        )
        return self.authority

    def phase(self) -> Phase:
        return self.authority.state.phase

    def report_all(self) -> None:
        """Let every proxy report what the authority tells it now."""
        state = self.authority.state
        for pod in sorted(self.pods or ()):
            self.authority.report(pod, Report(state.bundle_digest, state.issuer.digest))


@pytest.fixture
def mesh(tmp_path: Path) -> Mesh:
    return Mesh(tmp_path)


def test_the_authority_of_the_first_start_is_that_of_all_later_ones(mesh: Mesh) -> None:
    before = mesh.authority.state

    assert mesh.start().state == before


def test_a_root_rotation_waits_for_every_proxy_in_each_phase(mesh: Mesh) -> None:
    old = mesh.authority.state
    mesh.authority.rotate(root=True, force=False)
    both = mesh.authority.state.bundle_digest
    mesh.authority.report(A, Report(both, old.issuer.digest))
    assert (mesh.phase(), [of.pod for of in mesh.authority.blockers()]) == (Phase.DISTRIBUTING, [B])

    mesh.authority.report(B, Report(both, old.issuer.digest))
    assert mesh.phase() is Phase.RENEWING
    assert mesh.authority.state.epoch == old.epoch + 1
    assert mesh.authority.state.bundle_digest == both

    mesh.report_all()
    assert mesh.phase() is Phase.STEADY
    assert mesh.authority.state.root != old.root
    assert old.root.certificate_pem.rstrip() not in mesh.authority.state.bundle_pem


def test_a_restarted_controller_goes_on_where_it_was_and_asks_anew(mesh: Mesh) -> None:
    mesh.authority.rotate(root=True, force=False)
    state = mesh.authority.state
    mesh.authority.report(A, Report(state.bundle_digest, b""))

    mesh.start()

    assert mesh.authority.state == state
    assert [of.pod for of in mesh.authority.blockers()] == [A, B]
    mesh.report_all()
    assert mesh.phase() is Phase.RENEWING


def test_nothing_moves_while_nobody_knows_which_pods_there_are(mesh: Mesh) -> None:
    mesh.authority.rotate(root=True, force=False)
    mesh.pods = None
    mesh.start()

    mesh.authority.report(A, Report(mesh.authority.state.bundle_digest, b""))

    assert mesh.phase() is Phase.DISTRIBUTING


def test_a_pod_that_goes_blocks_no_longer(mesh: Mesh) -> None:
    mesh.authority.rotate(root=True, force=False)
    state = mesh.authority.state
    mesh.authority.report(A, Report(state.bundle_digest, state.issuer.digest))

    mesh.pods = frozenset({A})
    mesh.authority.settle()

    assert mesh.phase() is Phase.RENEWING


def test_force_moves_past_a_proxy_that_never_reports(mesh: Mesh) -> None:
    mesh.authority.rotate(root=True, force=False)

    mesh.authority.rotate(root=True, force=True)
    assert mesh.phase() is Phase.RENEWING
    mesh.authority.rotate(root=True, force=True)
    assert mesh.phase() is Phase.STEADY


def test_an_issuer_rotation_ends_when_every_leaf_is_new(mesh: Mesh) -> None:
    mesh.authority.rotate(root=False, force=False)
    assert mesh.phase() is Phase.RENEWING

    mesh.report_all()

    assert mesh.phase() is Phase.STEADY


def test_an_issuer_in_the_last_third_of_its_life_is_replaced(mesh: Mesh) -> None:
    before = mesh.authority.state.issuer
    mesh.clock.now += 19 * DAY
    mesh.authority.renew_issuer_in_time()
    assert mesh.authority.state.issuer == before

    mesh.clock.now += 2 * DAY
    mesh.authority.renew_issuer_in_time()
    after = mesh.authority.state.issuer
    mesh.authority.renew_issuer_in_time()

    assert after != before
    assert mesh.authority.state.issuer == after


def test_an_issuer_that_already_ends_with_its_root_is_left_alone(mesh: Mesh) -> None:
    mesh.clock.now += 299 * DAY
    mesh.authority.recover()
    issuer = mesh.authority.state.issuer
    assert issuer.expires == mesh.authority.state.root.expires

    mesh.authority.renew_issuer_in_time()

    assert mesh.authority.state.issuer == issuer


def test_an_expired_mesh_signs_nothing_until_it_is_recovered(mesh: Mesh) -> None:
    old = mesh.authority.state
    mesh.clock.now += 400 * DAY
    with pytest.raises(AuthorityExpiredError):
        mesh.authority.certify(WEB, request())

    done = mesh.authority.recover()

    state = mesh.authority.state
    assert done == ["root renewed under the same key", "issuer created", "every proxy is told to renew"]
    assert state.epoch == old.epoch + 1
    # What a proxy that still has only the expired root verifies with: its name and key.
    assert state.root.certificate.subject == old.root.certificate.subject
    state.issuer.certificate.verify_directly_issued_by(old.root.certificate)
    assert mesh.authority.certify(WEB, request()).expires > mesh.clock.now


def test_recovering_a_mesh_with_only_an_expired_issuer_keeps_its_root(mesh: Mesh) -> None:
    root = mesh.authority.state.root
    mesh.clock.now += 31 * DAY

    assert mesh.authority.recover() == ["issuer created", "every proxy is told to renew"]
    assert mesh.authority.state.root == root


def test_recovering_in_the_middle_of_a_rotation_goes_on_with_it(mesh: Mesh) -> None:
    mesh.authority.rotate(root=True, force=False)
    mesh.clock.now += 400 * DAY

    mesh.authority.recover()

    assert mesh.phase() is Phase.DISTRIBUTING
    mesh.report_all()
    mesh.report_all()
    assert mesh.phase() is Phase.STEADY


def test_the_leaf_s_life_is_the_one_configured(mesh: Mesh) -> None:
    assert mesh.authority.certify(WEB, request()).expires == mesh.clock.now + DAY + timedelta(seconds=10)
