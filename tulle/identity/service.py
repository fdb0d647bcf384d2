"""The Identity and TrustRoots services.

Neither waits for the world to be known: a certificate needs a token and nothing else, and the
controller's own proxy must have one before anybody can reach it.

A report counts only from whom it is about. Its own proxy talks to the controller over loopback; of
everybody else the controller's inbound proxy says in `l5d-client-id` whom mutual TLS proved.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from tulle.identity.authority import MeshAuthority
from tulle.identity.certificates import AuthorityExpiredError, RequestMalformedError, RequestRefusedError
from tulle.identity.rotation import Report
from tulle.lib.log import logger
from tulle.lib.stream import Context, refuse
from tulle.lib.tokens import Subject, TokenMalformedError, TokenRefusedError
from tulle.lib.views import Refused
from tulle.model.pod import TrustDomain, pod_of_workload
from tulle.model.service import ObjectName
from tulle.wire import identity_pb2, trust_roots_pb2

IDENTITY = "io.linkerd.proxy.identity.Identity"
TRUST_ROOTS = "tulle.trust.TrustRoots"
CLIENT_ID = "l5d-client-id"
_LOOPBACK = ("ipv4:127.", "ipv6:%5B::1%5D:", "ipv6:[::1]:", "unix:")

_log = logger("identity")


class IdentityService:
    """`verify` reads tokens; `identity_of` knows the name that a pod's proxy must have proved."""

    def __init__(
        self,
        authority: MeshAuthority,
        *,
        trust: TrustDomain,
        verify: Callable[[bytes], Subject],
        identity_of: Callable[[ObjectName], str | None],
    ) -> None:
        self._authority = authority
        self._trust = trust
        self._verify = verify
        self._identity_of = identity_of

    def handlers(self) -> tuple["grpc.GenericRpcHandler[Any, Any]", ...]:
        """Return what a gRPC server serves."""
        certify = grpc.unary_unary_rpc_method_handler(
            self.certify, request_deserializer=identity_pb2.CertifyRequest.FromString
        )
        watch = grpc.stream_stream_rpc_method_handler(
            self.watch, request_deserializer=trust_roots_pb2.Report.FromString
        )
        return (
            grpc.method_handlers_generic_handler(IDENTITY, {"Certify": certify}),
            grpc.method_handlers_generic_handler(TRUST_ROOTS, {"Watch": watch}),
        )

    async def certify(self, request: identity_pb2.CertifyRequest, context: Context) -> bytes:
        """Answer one request for a certificate."""
        answer = self.sign(request)
        if isinstance(answer, Refused):
            _log.warning("not certified", identity=request.identity, why=answer.message)
            await refuse(context, answer)
        return answer

    def sign(self, request: identity_pb2.CertifyRequest) -> bytes | Refused:
        """Return the response, or why there is none."""
        if not (request.identity and request.token and request.certificate_signing_request):
            return Refused(grpc.StatusCode.INVALID_ARGUMENT, "identity, token and request must not be empty")
        try:
            subject = self._verify(request.token)
            proved = self._trust.identity(subject.namespace, subject.service_account)
            if proved != request.identity:
                text = f"the token is {proved}'s, not {request.identity}'s"
                return Refused(grpc.StatusCode.FAILED_PRECONDITION, text)
            leaf = self._authority.certify(request.identity, request.certificate_signing_request)
        except (TokenMalformedError, RequestMalformedError) as error:
            return Refused(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except (TokenRefusedError, RequestRefusedError) as error:
            return Refused(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        except AuthorityExpiredError as error:
            return Refused(grpc.StatusCode.UNAVAILABLE, f"{error}: run `tulle identity recover`")
        response = identity_pb2.CertifyResponse(
            leaf_certificate=leaf.certificate,
            intermediate_certificates=leaf.intermediates,
            valid_until=Timestamp(seconds=int(leaf.expires.timestamp())),
        )
        return response.SerializeToString()

    async def watch(self, reports: AsyncIterator[trust_roots_pb2.Report], context: Context) -> None:
        """Tell a proxy what to trust, and hear what it does."""
        async with asyncio.TaskGroup() as tasks:
            telling = tasks.create_task(self._tell(context))
            async for report in reports:
                self._hear(report, context)
            telling.cancel()

    async def _tell(self, context: Context) -> None:
        generation = 0
        while True:
            generation, state = await self._authority.latest.next(generation)
            message = trust_roots_pb2.State(bundle_pem=state.bundle_pem, renew_epoch=state.epoch)
            await context.write(message.SerializeToString())

    def _hear(self, report: trust_roots_pb2.Report, context: Context) -> None:
        pod = pod_of_workload(report.workload)
        if pod is None or not self._is_from(pod, context):
            _log.warning("report ignored", workload=report.workload, peer=context.peer())
            return
        self._authority.report(pod, Report(report.bundle_sha256, report.issuer_sha256))

    def _is_from(self, pod: ObjectName, context: Context) -> bool:
        if context.peer().startswith(_LOOPBACK):
            return True
        proved = dict(context.invocation_metadata() or ()).get(CLIENT_ID)
        return proved is not None and proved == self._identity_of(pod)
