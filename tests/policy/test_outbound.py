from collections.abc import Iterator

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from tests.control_plane import WEB
from tulle.model.protocol import Protocol
from tulle.policy.outbound import policy
from tulle.policy.targets import Egress, ServiceTarget, UndefinedPort
from tulle.wire import meta_pb2
from tulle.wire import outbound_pb2 as wire

TARGETS = [
    *(ServiceTarget(WEB, 80, protocol) for protocol in Protocol),
    UndefinedPort(WEB, 81),
    Egress("192.0.2.7", 443),
    Egress("2001:db8::7", 443),
]
WEB_PORT = meta_pb2.Metadata(
    resource={"group": "core", "kind": "Service", "name": "web", "namespace": "shop", "port": 80}
)


def build(target: ServiceTarget | UndefinedPort | Egress) -> wire.OutboundPolicy:
    return policy(target, cluster_domain="cluster.local", extended=True)


def messages(message: Message) -> Iterator[Message]:
    yield message
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for item in value if field.is_repeated else [value]:
                yield from messages(item)


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_a_proxy_finds_everything_that_it_demands(target: ServiceTarget | UndefinedPort | Egress) -> None:
    built = build(target)

    assert built.protocol.WhichOneof("kind")
    for part in messages(built):
        fields = part.DESCRIPTOR.fields_by_name
        if "metadata" in fields:
            metadata = part.metadata  # type: ignore[attr-defined]
            assert metadata.WhichOneof("kind"), part.DESCRIPTOR.full_name
        if isinstance(part, meta_pb2.Resource):
            assert part.group
            assert part.kind
            assert part.name
            assert part.namespace
        if isinstance(part, wire.Backend):
            assert part.HasField("queue")
            assert part.queue.HasField("failfast_timeout")
            assert part.WhichOneof("kind")
        if isinstance(part, wire.Backend.BalanceP2c):
            assert part.discovery.dst.path
            assert part.peak_ewma.HasField("default_rtt")
            assert part.peak_ewma.HasField("decay")
        if isinstance(part, wire.ProxyProtocol.Detect):
            assert all(part.HasField(field) for field in ("timeout", "opaque", "http1", "http2"))
        if isinstance(part, wire.OpaqueRoute | wire.TlsRoute):
            assert len(part.rules) == 1
        if part.DESCRIPTOR.name == "Rule":
            assert part.backends.WhichOneof("kind")  # type: ignore[attr-defined]
        if part.DESCRIPTOR.name in ("FirstAvailable", "RandomAvailable"):
            assert part.backends  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("protocol", "kind"),
    [
        (Protocol.DETECT, "detect"),
        (Protocol.HTTP1, "http1"),
        (Protocol.HTTP2, "http2"),
        (Protocol.GRPC, "grpc"),
        (Protocol.TLS, "tls"),
        (Protocol.OPAQUE, "opaque"),
    ],
)
def test_a_protocol_is_said_as_itself(protocol: Protocol, kind: str) -> None:
    assert build(ServiceTarget(WEB, 80, protocol)).protocol.WhichOneof("kind") == kind


def test_a_service_is_balanced_over_its_own_endpoints() -> None:
    built = build(ServiceTarget(WEB, 80, Protocol.DETECT))

    backend = wire.Backend(
        metadata=WEB_PORT,
        balancer={
            "discovery": {"dst": {"path": "web.shop.svc.cluster.local:80"}},
            "peak_ewma": {"default_rtt": {"nanos": 30_000_000}, "decay": {"seconds": 10}},
        },
        queue={"capacity": 100, "failfast_timeout": {"seconds": 3}},
    )
    http = wire.HttpRoute(
        metadata={"default": "http"},
        rules=[
            {
                "matches": [{"path": {"prefix": "/"}}],
                "backends": {"first_available": {"backends": [{"backend": backend}]}},
            }
        ],
    )
    opaque = wire.OpaqueRoute(
        metadata={"default": "opaq"},
        rules=[{"backends": {"first_available": {"backends": [{"backend": backend}]}}}],
    )
    assert built == wire.OutboundPolicy(
        metadata=WEB_PORT,
        protocol={
            "detect": {
                "timeout": {"seconds": 10},
                "http1": {"routes": [http]},
                "http2": {"routes": [http]},
                "opaque": {"routes": [opaque]},
            }
        },
    )


def test_an_undefined_port_is_forbidden() -> None:
    (route,) = build(UndefinedPort(WEB, 81)).protocol.opaque.routes

    assert route == wire.OpaqueRoute(
        metadata={"default": "undefined-port"},
        rules=[{"backends": {"empty": {}}, "filters": [{"forbidden": {}}]}],
    )


def test_egress_goes_to_the_address_in_plaintext() -> None:
    built = build(Egress("192.0.2.7", 443))

    (route,) = built.protocol.detect.opaque.routes
    (choice,) = route.rules[0].backends.first_available.backends
    assert built.metadata.default == "egress-fallback"
    assert choice.backend.forward.addr.port == 443
    assert not choice.backend.forward.HasField("tls_identity")
