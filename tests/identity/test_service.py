import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography import x509

from tests.control_plane import code_of, served, stub
from tests.identity.material import DAY, WEB, SteppingClock, request
from tulle.identity.authority import Lifetimes, MeshAuthority
from tulle.identity.rotation import Phase
from tulle.identity.service import IdentityService
from tulle.identity.store import Store
from tulle.lib import tokens
from tulle.lib.tokens import Subject
from tulle.model.pod import TrustDomain
from tulle.model.service import ObjectName
from tulle.wire import identity_pb2 as wire
from tulle.wire import trust_roots_pb2
from tulle.wire.identity_pb2_grpc import IdentityStub
from tulle.wire.trust_roots_pb2_grpc import TrustRootsStub

KEY = bytes(32)
TOKEN = tokens.mint(KEY, Subject("shop", "web", "web-0"))
POD = ObjectName("shop", "web-0")


@dataclass
class Mesh:
    authority: MeshAuthority
    clock: SteppingClock
    identity: Any
    roots: Any

    def certify(self, identity: str = WEB, token: bytes = TOKEN, csr: bytes | None = None) -> Any:
        der = request() if csr is None else csr
        return self.identity.Certify(
            wire.CertifyRequest(identity=identity, token=token, certificate_signing_request=der)
        )


@asynccontextmanager
async def mesh(folder: Path) -> AsyncIterator[Mesh]:
    clock = SteppingClock()
    authority = MeshAuthority(
        Store(folder),
        trust=TrustDomain(),
        lifetimes=Lifetimes(),
        clock=clock,
        expected=lambda: frozenset({POD}),
    )
    service = IdentityService(
        authority,
        trust=TrustDomain(),
        verify=lambda token: tokens.verify(KEY, token),
        identity_of=lambda pod: WEB if pod == POD else None,
    )
    async with served(service.handlers()) as channel:
        yield Mesh(authority, clock, stub(IdentityStub, channel), stub(TrustRootsStub, channel))


async def test_a_proven_workload_gets_a_chain_in_der(tmp_path: Path) -> None:
    async with mesh(tmp_path) as shop:
        response = await shop.certify()

        leaf = x509.load_der_x509_certificate(response.leaf_certificate)
        (issuer,) = map(x509.load_der_x509_certificate, response.intermediate_certificates)
        leaf.verify_directly_issued_by(issuer)
        issuer.verify_directly_issued_by(shop.authority.state.root.certificate)
        assert response.valid_until.ToSeconds() == int(leaf.not_valid_after_utc.timestamp())


@pytest.mark.parametrize(
    ("wish", "code"),
    [
        ({"identity": ""}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"token": b""}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"csr": b""}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"csr": b"\x30\x00"}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"token": b"not a token"}, grpc.StatusCode.INVALID_ARGUMENT),
        (
            {"token": tokens.mint(b"x" * 32, Subject("shop", "web", "web-0"))},
            grpc.StatusCode.FAILED_PRECONDITION,
        ),
        (
            {"token": tokens.mint(KEY, Subject("shop", "db", "db-0"))},
            grpc.StatusCode.FAILED_PRECONDITION,
        ),
        ({"csr": request(x509.DNSName("db.shop"))}, grpc.StatusCode.FAILED_PRECONDITION),
        ({"identity": "db.shop"}, grpc.StatusCode.FAILED_PRECONDITION),
    ],
)
async def test_what_is_not_certified_ends_with_its_code(
    tmp_path: Path, wish: dict[str, Any], code: grpc.StatusCode
) -> None:
    async with mesh(tmp_path) as shop:
        assert await code_of(shop.certify(**wish)) is code


async def test_an_expired_authority_is_unavailable_and_says_what_to_do(tmp_path: Path) -> None:
    async with mesh(tmp_path) as shop:
        shop.clock.now += 4000 * DAY

        with pytest.raises(grpc.aio.AioRpcError, match="tulle identity recover") as refused:
            await shop.certify()

        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_proxy_is_led_through_a_root_rotation(tmp_path: Path) -> None:
    async with mesh(tmp_path) as shop:
        stream = shop.roots.Watch()

        async def report() -> None:
            state = shop.authority.state
            await stream.write(
                trust_roots_pb2.Report(
                    workload='{"ns":"shop","pod":"web-0"}',
                    bundle_sha256=state.bundle_digest,
                    issuer_sha256=state.issuer.digest,
                )
            )

        await report()
        first = await stream.read()
        assert first == trust_roots_pb2.State(bundle_pem=shop.authority.state.bundle_pem, renew_epoch=0)

        shop.authority.rotate(root=True, force=False)
        both = await stream.read()
        assert both.bundle_pem.count("BEGIN CERTIFICATE") == 2

        await report()
        renew = await stream.read()
        assert (renew.renew_epoch, renew.bundle_pem) == (1, both.bundle_pem)

        await report()
        last = await stream.read()
        assert last.bundle_pem == shop.authority.state.root.certificate_pem.rstrip()
        assert last.bundle_pem not in (first.bundle_pem, both.bundle_pem)
        assert shop.authority.state.phase is Phase.STEADY


class Peer:
    """The part of a call's context that says who calls."""

    def __init__(self, peer: str, client_id: str | None) -> None:
        self._peer = peer
        self._metadata = (("l5d-client-id", client_id),) if client_id else ()

    def peer(self) -> str:
        return self._peer

    def invocation_metadata(self) -> object:
        return self._metadata


@pytest.mark.parametrize(
    ("peer", "client_id", "counts"),
    [
        ("ipv4:127.0.0.1:4000", None, True),
        ("ipv6:%5B::1%5D:4000", None, True),
        ("ipv4:10.77.0.2:4000", WEB, True),
        ("ipv4:10.77.0.2:4000", "db.shop.serviceaccount.identity.linkerd.cluster.local", False),
        ("ipv4:10.77.0.2:4000", None, False),
    ],
)
async def test_a_report_counts_only_from_whom_it_is_about(
    tmp_path: Path, peer: str, client_id: str | None, counts: bool
) -> None:
    async with mesh(tmp_path) as shop:
        service = IdentityService(
            shop.authority,
            trust=TrustDomain(),
            verify=lambda token: tokens.verify(KEY, token),
            identity_of=lambda pod: WEB if pod == POD else None,
        )
        for workload in ("shop:web-0", "shop:stranger"):
            service._hear(trust_roots_pb2.Report(workload=workload), Peer(peer, client_id))  # type: ignore[arg-type]

        assert set(shop.authority.reports) == ({POD} if counts else set())


async def test_a_report_for_a_pod_that_is_not_there_counts_for_nobody(tmp_path: Path) -> None:
    async with mesh(tmp_path) as shop:
        stream = shop.roots.Watch()
        await stream.write(trust_roots_pb2.Report(workload="shop:stranger"))
        await stream.write(trust_roots_pb2.Report(workload="}"))
        await stream.read()
        await asyncio.sleep(0)

        assert not shop.authority.reports
