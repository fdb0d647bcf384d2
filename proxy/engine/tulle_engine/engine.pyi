from collections.abc import Sequence
from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address
from typing import Literal, final

@final
class Resource:
    """The object that something comes from; kind `default` and no group where there is none."""

    @property
    def group(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def namespace(self) -> str:
        """Empty in what a server's proxy is told: it is that of the pod."""
    @property
    def name(self) -> str: ...
    @property
    def port(self) -> int | None: ...
    def __hash__(self) -> int: ...

@final
class Step:
    """One step of a decision."""

    @property
    def subject(self) -> Literal["route", "rule", "authorization", "routes", "authorizations", "policy"]: ...
    @property
    def resource(self) -> Resource | None: ...
    @property
    def rule(self) -> int | None:
        """The rule's place in its route, from 0."""
    @property
    def verdict(self) -> Literal["matched", "skipped", "allowed", "refused"]: ...
    @property
    def why(self) -> str: ...

@final
class Request:
    """A request's head."""

    def __new__(
        cls,
        method: str,
        path: str,
        *,
        authority: str,
        headers: Sequence[tuple[str, str]] = (),
        http2: bool = False,
    ) -> Request:
        """Raises ValueError where HTTP does not allow it."""
    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def authority(self) -> str: ...
    @property
    def headers(self) -> list[tuple[str, str]]: ...
    @property
    def http2(self) -> bool: ...

@final
class ServerDecision:
    """What a server's proxy does; `status` is there where it answers by itself."""

    @property
    def allowed(self) -> bool: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def message(self) -> str | None: ...
    @property
    def status(self) -> int | None: ...
    @property
    def grpc_status(self) -> int | None:
        """What a gRPC client is told instead, with the status 200."""
    @property
    def location(self) -> str | None: ...
    @property
    def server(self) -> Resource: ...
    @property
    def route(self) -> Resource | None: ...
    @property
    def authorization(self) -> Resource | None: ...
    @property
    def request(self) -> Request | None:
        """The request as the application gets it."""
    @property
    def steps(self) -> list[Step]: ...

@final
class RateLimit:
    """How many requests a second a port takes; None is no limit."""

    @property
    def resource(self) -> Resource: ...
    @property
    def total(self) -> int | None: ...
    @property
    def client(self) -> int | None: ...

@final
class ServerPolicy:
    """The policy of one port."""

    @staticmethod
    def decode(bytes: bytes) -> ServerPolicy:
        """Read what a proxy is sent; raises ValueError. What makes no sense refuses everything."""
    @property
    def resource(self) -> Resource: ...
    @property
    def protocol(self) -> Literal["detect", "http1", "http2", "grpc", "opaque", "tls", "invalid"]: ...
    def authorize(
        self, client: str | IPv4Address | IPv6Address, identity: str | None, request: Request
    ) -> ServerDecision:
        """Route and authorize a request."""
    def connect(self, client: str | IPv4Address | IPv6Address, identity: str | None) -> ServerDecision:
        """Authorize a connection whose requests are not looked at."""
    def rate_limit(self, identity: str | None) -> RateLimit | None: ...

@final
class Backend:
    """Something that a rule sends traffic to; `status` is there where a request that falls to it is answered."""

    @property
    def resource(self) -> Resource: ...
    @property
    def weight(self) -> int: ...
    @property
    def path(self) -> str | None:
        """The name whose endpoints it is balanced over."""
    @property
    def address(self) -> str | None: ...
    @property
    def request(self) -> Request | None:
        """The request as it is sent there."""
    @property
    def reason(self) -> str | None: ...
    @property
    def message(self) -> str | None: ...
    @property
    def status(self) -> int | None: ...
    @property
    def grpc_status(self) -> int | None:
        """What a gRPC client is told instead, with the status 200."""
    @property
    def location(self) -> str | None: ...

@final
class Retry:
    """When a request is tried again."""

    @property
    def limit(self) -> int: ...
    @property
    def statuses(self) -> list[tuple[int, int]]: ...
    @property
    def grpc_codes(self) -> list[int]: ...
    @property
    def timeout(self) -> timedelta | None: ...

@final
class ClientDecision:
    """What a client's proxy does; `status` is there where it answers by itself."""

    @property
    def reason(self) -> str | None: ...
    @property
    def message(self) -> str | None: ...
    @property
    def status(self) -> int | None: ...
    @property
    def grpc_status(self) -> int | None:
        """What a gRPC client is told instead, with the status 200."""
    @property
    def location(self) -> str | None: ...
    @property
    def route(self) -> Resource | None: ...
    @property
    def backends(self) -> list[Backend]: ...
    @property
    def request_timeout(self) -> timedelta | None: ...
    @property
    def response_timeout(self) -> timedelta | None: ...
    @property
    def idle_timeout(self) -> timedelta | None: ...
    @property
    def retry(self) -> Retry | None: ...
    @property
    def steps(self) -> list[Step]: ...

@final
class ClientPolicy:
    """Where traffic to one destination goes."""

    @staticmethod
    def decode(bytes: bytes, *, profile: bytes | None = None, port: int = 0) -> ClientPolicy:
        """Read what a proxy is sent; raises ValueError. What makes no sense refuses everything.

        A service profile rules where it has something to say, for the port that was asked about.
        """
    @property
    def resource(self) -> Resource: ...
    @property
    def protocol(self) -> Literal["detect", "http1", "http2", "grpc", "opaque", "tls", "invalid"]: ...
    def route(self, request: Request) -> ClientDecision:
        """Choose the rule of a request, and run its filters."""
    def connect(self, *, sni: str | None = None) -> ClientDecision:
        """Choose the rule of a connection."""
