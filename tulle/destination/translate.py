"""Destination answers as wire messages. Serialisation is deterministic, so that equal answers are equal bytes."""

from collections.abc import Iterable, Mapping

from google.protobuf.message import Message

from tulle.destination import profiles
from tulle.destination.index import EmptyProfile, EndpointProfile, Peer, ServiceProfile
from tulle.model.profile import RetryBudget
from tulle.model.service import ObjectName
from tulle.wire import destination_pb2 as wire
from tulle.wire import meta_pb2
from tulle.wire.addresses import to_wire_port

# The wire's 1; the proxies ignore it.
WEIGHT = 10_000
SPIFFE = "spiffe://"


def serialize(message: Message) -> bytes:
    """Return the one encoding of a message."""
    return message.SerializeToString(deterministic=True)


def weighted(peer: Peer) -> wire.WeightedAddr:
    """Translate one endpoint."""
    message = wire.WeightedAddr(
        addr=to_wire_port(peer.address, peer.port), weight=WEIGHT, metric_labels=dict(peer.labels)
    )
    if peer.identity is not None:
        if peer.identity.startswith(SPIFFE):
            message.tls_identity.uri_like_identity.uri = peer.identity
        else:
            message.tls_identity.dns_like_identity.name = peer.identity
    if peer.server_name is not None:
        message.tls_identity.server_name.name = peer.server_name
    if peer.opaque:
        message.protocol_hint.opaque.SetInParent()
    elif peer.h2:
        message.protocol_hint.h2.SetInParent()
    if peer.inbound_port is not None:
        message.protocol_hint.opaque_transport.inbound_port = peer.inbound_port
    return message


def add(service: ObjectName, peers: Iterable[wire.WeightedAddr]) -> bytes:
    """Say that endpoints are there, or are now so."""
    labels = {"namespace": service.namespace, "service": service.name}
    return serialize(wire.Update(add=wire.WeightedAddrSet(addrs=peers, metric_labels=labels)))


def remove(where: Iterable[tuple[str, int]]) -> bytes:
    """Say that endpoints are gone."""
    return serialize(wire.Update(remove=wire.AddrSet(addrs=[to_wire_port(*key) for key in where])))


def no_endpoints(*, exists: bool) -> bytes:
    """Say that there is none."""
    return serialize(wire.Update(no_endpoints=wire.NoEndpoints(exists=exists)))


def weighted_all(peers: Mapping[tuple[str, int], Peer]) -> dict[tuple[str, int], wire.WeightedAddr]:
    return {key: weighted(peer) for key, peer in peers.items()}


def profile(of: ServiceProfile | EndpointProfile | EmptyProfile, *, cluster_domain: str) -> bytes:
    """Translate a profile."""
    match of:
        case EmptyProfile():
            return serialize(wire.DestinationProfile())
        case EndpointProfile(peer):
            return serialize(wire.DestinationProfile(endpoint=weighted(peer), opaque_protocol=peer.opaque))
        case ServiceProfile(service, port, opaque, chosen):
            resource = meta_pb2.Resource(
                group="core", kind="Service", name=service.name, namespace=service.namespace, port=port
            )
            message = wire.DestinationProfile(
                fully_qualified_name=f"{service.name}.{service.namespace}.svc.{cluster_domain}",
                opaque_protocol=opaque,
                retry_budget=profiles.budget(RetryBudget()),
                parent_ref=meta_pb2.Metadata(resource=resource),
            )
            if chosen is not None:
                profiles.write(chosen, message, port=port, domain=cluster_domain)
            return serialize(message)
