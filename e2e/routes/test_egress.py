"""EgressNetworks: what may leave, to an address that is no part of the cluster's networks."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

import pytest

from e2e import http1
from e2e.conftest import Field
from e2e.pods import Pod, eventually
from e2e.routes.rig import answering, is_from, is_status, manifests, until
from e2e.routes.test_other_kinds import first_word, hello, saying
from tulle.local.enter import inside_network

OUTSIDE = "198.51.100.7"
NETWORK = """
apiVersion: policy.linkerd.io/v1alpha1
kind: EgressNetwork
metadata: {{name: outside, namespace: {namespace}}}
spec: {{trafficPolicy: {verdict}}}
"""
DOCS = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: docs}}
spec:
  parentRefs: [{{group: policy.linkerd.io, kind: EgressNetwork, name: outside, port: {port}}}]
  hostnames: [docs.example]
  rules: [{{matches: [{{path: {{value: /public}}}}]}}]
"""
NAMED = """
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TLSRoute
metadata: {{name: named}}
spec:
  parentRefs: [{{group: policy.linkerd.io, kind: EgressNetwork, name: outside, port: {port}}}]
  hostnames: [docs.example]
  rules:
  - backendRefs: [{{group: policy.linkerd.io, kind: EgressNetwork, name: outside}}]
"""


async def change_network(pod: Pod, *arguments: str) -> None:
    """Run `ip` in a pod's network."""
    command = inside_network(
        await pod.mesh.api.holder(pod.name), ["ip", *arguments], rootless=os.geteuid() != 0
    )
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    process = await asyncio.create_subprocess_exec(*command, env={**os.environ, "PATH": path})
    assert await process.wait() == 0


@contextlib.asynccontextmanager
async def outside(field: Field, client: Pod) -> AsyncIterator[Pod]:
    """Give a pod without a proxy an address outside, that a client has a way to."""
    server = field["plain-server"]
    await change_network(server, "address", "replace", f"{OUTSIDE}/32", "dev", "eth0")
    await change_network(client, "route", "replace", f"{OUTSIDE}/32", "dev", "eth0")
    try:
        yield server
    finally:
        await change_network(client, "route", "delete", f"{OUTSIDE}/32")
        await change_network(server, "address", "delete", f"{OUTSIDE}/32", "dev", "eth0")


async def ask(client: Pod, port: int, path: str = "/", host: str = OUTSIDE) -> http1.Message:
    """Make one request to the address outside."""
    async with await client.connect(OUTSIDE, port) as stream:
        return await http1.ask(stream, http1.get(path, host=host))


@pytest.mark.parametrize("namespace", ["default", "linkerd-egress"])
async def test_what_is_outside_is_reached_unless_a_network_denies_it(
    field: Field, which: str, namespace: str
) -> None:
    client = field[f"client-{which}"]
    networks = "{apiVersion: v1, kind: Namespace, metadata: {name: linkerd-egress}}"
    async with outside(field, client) as server, answering(server) as (served, _):

        async def answer() -> http1.Message:
            return await ask(client, served.port)

        await until(answer, is_from(server), "it is reached without a network")
        text = NETWORK.format(namespace=namespace, verdict="Deny")
        async with manifests(field, "egress", networks, text):
            refused = await until(answer, is_status(403), "it is refused")
        text = NETWORK.format(namespace=namespace, verdict="Allow")
        async with manifests(field, "egress", networks, text):
            await until(answer, is_from(server), "it is allowed")

    assert refused["l5d-proxy-error"]


async def test_a_route_lets_its_host_and_path_out(field: Field, which: str) -> None:
    client = field[f"client-{which}"]
    async with outside(field, client) as server, answering(server) as (served, recorder):
        texts = [NETWORK.format(namespace="default", verdict="Deny"), DOCS.format(port=served.port)]
        async with manifests(field, "egress", *texts):
            refused = await until(lambda: ask(client, served.port), is_status(403), "the rest is refused")
            allowed = await ask(client, served.port, "/public/page", "docs.example")
            wrong_path = await ask(client, served.port, "/private", "docs.example")
            wrong_host = await ask(client, served.port, "/public", "other.example")

    assert is_from(server)(allowed)
    assert [answer.status for answer in (refused, wrong_path, wrong_host)] == [403, 403, 403]
    assert {each.target for each in recorder.seen} <= {"/", "/public/page"}


async def test_a_route_lets_its_name_out(field: Field, which: str) -> None:
    client = field[f"client-{which}"]
    async with outside(field, client) as server, server.serving(saying(b"hello")) as served:
        texts = [NETWORK.format(namespace="default", verdict="Deny"), NAMED.format(port=served.port)]
        async with manifests(field, "egress", *texts):

            async def is_decided() -> bool:
                names = ("docs.example", "other.example")
                words = [await first_word(client, OUTSIDE, hello(name), port=served.port) for name in names]
                return words == [b"hello", b""]

            await eventually(is_decided, "only the named host is reached")
