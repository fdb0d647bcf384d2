"""What is asked, and what the answer says. These names are public: they are what `tulle why -o json` prints."""

from typing import Literal

import msgspec

Kind = Literal["http", "grpc", "tcp"]


class Question(msgspec.Struct, frozen=True):
    """A request, or with `tcp` a connection.

    `source` is a workload, a pod or an address, `target` what the client would write; `address` is what a name outside
    the mesh stands for. Without a method it is GET, and POST to gRPC, which has no path /: some call is asked
    about then. Without a port it is the service's only one.
    """

    source: str
    target: str
    path: str = "/"
    method: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    tcp: bool = False
    http2: bool = False
    address: str | None = None


class Reference(msgspec.Struct, frozen=True):
    """An object, and where it is written; kind `default` is what no object stands behind."""

    kind: str
    name: str
    namespace: str = ""
    source: str | None = None

    def __str__(self) -> str:
        """Name it as people do."""
        if self.kind == "default":
            return f"the default {self.name}"
        place = f" ({self.source})" if self.source else ""
        return f"{self.kind} {self.namespace}/{self.name}{place}" if self.namespace else self.name


class Step(msgspec.Struct, frozen=True):
    """Something that was looked at, and what came of it."""

    subject: str
    verdict: Literal["matched", "skipped", "allowed", "refused"]
    why: str
    object: Reference | None = None
    rule: int | None = None


class Party(msgspec.Struct, frozen=True):
    """Who asks."""

    name: str
    address: str
    namespace: str = ""
    meshed: bool = False
    identity: str | None = None


class Target(msgspec.Struct, frozen=True):
    """What the target's name led to; no object is an address that is no service's."""

    asked: str
    address: str
    port: int
    object: Reference | None = None
    remark: str | None = None


class Asked(msgspec.Struct, frozen=True):
    """The request as the client sends it."""

    kind: Kind
    method: str = ""
    path: str = ""
    authority: str = ""
    headers: tuple[tuple[str, str], ...] = ()


class Refusal(msgspec.Struct, frozen=True):
    """What a proxy answers by itself; a redirect has a location and no reason, a connection no status.

    A gRPC client is told `grpc_status`, with the status 200.
    """

    reason: str | None = None
    message: str | None = None
    status: int | None = None
    location: str | None = None
    grpc_status: int | None = None


class Outbound(msgspec.Struct, frozen=True):
    """What the client's proxy decides; `policy` is the Service or the EgressNetwork whose policy it is."""

    protocol: str
    policy: Reference
    route: Reference | None = None
    refusal: Refusal | None = None
    limits: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()


class Inbound(msgspec.Struct, frozen=True):
    """What the proxies of these pods decide; `identity` is what the client proves to them."""

    pods: tuple[str, ...]
    namespace: str
    port: int
    protocol: str
    server: Reference
    identity: str | None = None
    route: Reference | None = None
    authorization: Reference | None = None
    changed: tuple[str, ...] = ()
    refusal: Refusal | None = None
    limits: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()


class Branch(msgspec.Struct, frozen=True):
    """One backend with its share of the requests, and what happens there."""

    backend: Reference
    share: float
    endpoints: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    refusal: Refusal | None = None
    inbound: tuple[Inbound, ...] = ()

    @property
    def refused(self) -> Refusal | None:
        """Return the first refusal, if there is one."""
        return next((each for each in (self.refusal, *(of.refusal for of in self.inbound)) if each), None)


class Explanation(msgspec.Struct, frozen=True):
    """The decision path of one request. It is allowed where every backend that can get it takes it.

    `straight` says why no proxy of the client's has a say.
    """

    client: Party
    target: Target
    asked: Asked
    allowed: bool
    outbound: Outbound | None = None
    straight: str | None = None
    branches: tuple[Branch, ...] = ()


class Permission(msgspec.Struct, frozen=True):
    """What to add, as YAML; empty where the request is allowed already. `test` says so in `tulle.testing`."""

    explanation: Explanation
    manifests: str
    test: str
    remarks: tuple[str, ...] = ()
