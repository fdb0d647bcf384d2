"""A small shop and a real gRPC dialogue, for the tests of the control plane."""

import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc.aio

from tulle.lib.stream import SERVER_OPTIONS, Gate
from tulle.model.endpoint import Endpoint, Slice, SlicePort
from tulle.model.pod import Owner, Pod
from tulle.model.service import ObjectName, Service, ServicePort
from tulle.model.update import Changed, Object
from tulle.model.world import World

WEB = ObjectName("shop", "web")
WEB_SERVICE = Service(WEB, ports=(ServicePort(80, "http", "http"),), cluster_ips=("10.78.0.5", "fd78::5"))
WEB_IDENTITY = "web.shop.serviceaccount.identity.linkerd.cluster.local"


def web_pod(number: int = 0, **changes: Any) -> Pod:
    pod = Pod(
        ObjectName("shop", f"web-{number}"),
        addresses=(f"10.77.0.{10 + number}", f"fd77::{10 + number}"),
        service_account="web",
        owner=Owner("Deployment", "web"),
        node="local",
        meshed=True,
        ports={"http": 8080},
    )
    return replace(pod, **changes)


def web_slice(*pods: Pod, ready: bool = True, family: int = 4, port: int = 8080) -> Slice:
    endpoints = tuple(
        Endpoint(address, ready=ready, hostname=pod.hostname, pod=pod.name, node=pod.node)
        for pod in pods
        for address in pod.addresses
        if (":" in address) == (family == 6)
    )
    return Slice(ObjectName("shop", f"web-ipv{family}-0"), WEB, (SlicePort("http", port),), endpoints)


def world_of(*objects: Object) -> World:
    world = World()
    world.apply([Changed(item) for item in objects])
    return world


def open_gate() -> Gate:
    gate = Gate()
    gate.open()
    return gate


@asynccontextmanager
async def served(handlers: Sequence["grpc.GenericRpcHandler[Any, Any]"]) -> AsyncIterator[grpc.aio.Channel]:
    """Serve the handlers on a Unix socket and lend a channel to it."""
    with tempfile.TemporaryDirectory() as folder:
        address = f"unix:{Path(folder) / 'grpc.sock'}"
        server = grpc.aio.server(options=SERVER_OPTIONS)
        server.add_generic_rpc_handlers(tuple(handlers))
        server.add_insecure_port(address)
        await server.start()
        try:
            async with grpc.aio.insecure_channel(address) as channel:
                yield channel
        finally:
            await server.stop(None)


def stub(kind: Any, channel: grpc.aio.Channel) -> Any:
    """Make a generated stub, whose code has no types."""
    return kind(channel)


async def code_of(call: Any) -> grpc.StatusCode:
    """Return how a call ended; for a stream, after its next message would have come."""
    try:
        if hasattr(call, "read"):
            await call.read()
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK
