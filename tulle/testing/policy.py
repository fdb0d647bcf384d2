"""Manifests as something to ask: who gets where, decided by the proxy's own engine, without a running mesh."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from tulle.explain import words
from tulle.explain.answer import Explanation, Question, Reference
from tulle.explain.folder import folder_ground
from tulle.explain.why import explain

__all__ = ["Call", "PolicyMesh"]

REMEMBERED = 5
"""The calls that the report of a failed test shows; the last is nearly always the one."""


class Call:
    """What would become of a request."""

    def __init__(self, explanation: Explanation) -> None:
        self.explanation = explanation

    @property
    def allowed(self) -> bool:
        """Whether every backend that may get the request takes it."""
        return self.explanation.allowed

    @property
    def status(self) -> int | None:
        """The status that a proxy answers with in place of the application."""
        refusal = words.first_refusal(self.explanation)
        return refusal.status if refusal else None

    @property
    def grpc_status(self) -> int | None:
        """What a gRPC client is told in place of the application, with the status 200."""
        refusal = words.first_refusal(self.explanation)
        return refusal.grpc_status if refusal else None

    @property
    def reason(self) -> str | None:
        """The code of the refusal, as in the header `tulle-reason`."""
        refusal = words.first_refusal(self.explanation)
        return refusal.reason if refusal else None

    @property
    def location(self) -> str | None:
        """Where a redirect leads."""
        refusal = words.first_refusal(self.explanation)
        return refusal.location if refusal else None

    @property
    def route(self) -> str | None:
        """The name of the route that the client's proxy chose."""
        outbound = self.explanation.outbound
        return outbound.route.name if outbound and outbound.route else None

    @property
    def split(self) -> dict[str, float]:
        """The share of each backend; one of another namespace is called `NAMESPACE/NAME`."""
        target = self.explanation.target.object
        home = target.namespace if target else self.explanation.client.namespace
        shares: dict[str, float] = {}
        for branch in self.explanation.branches:
            of = branch.backend
            name = f"{of.namespace}/{of.name}" if of.namespace not in ("", home) else of.name
            shares[name] = shares.get(name, 0.0) + branch.share
        return {name: share for name, share in shares.items() if share}

    def allowed_by(self, name: str) -> bool:
        """Tell whether the request is allowed, and an authorization of this name let it in somewhere."""
        return self.allowed and any(
            inbound.authorization is not None and inbound.authorization.name == name
            for branch in self.explanation.branches
            for inbound in branch.inbound
        )

    def denied_by(self, name: str) -> bool:
        """Tell whether the request is denied, and an object of this name had a say in that.

        That is the Server or the route that it came to, an authorization of them that names others, or what the
        client's proxy refused it by, such as an EgressNetwork.
        """
        denied: list[Reference | None] = []
        for branch in self.explanation.branches:
            for inbound in branch.inbound:
                if inbound.refusal is not None and inbound.refusal.reason == "unauthorized":
                    denied += [inbound.server, inbound.route]
                    denied += [step.object for step in inbound.steps if step.subject == "authorization"]
        outbound = self.explanation.outbound
        if outbound and outbound.refusal:
            denied += [outbound.policy, outbound.route]
        return any(each is not None and each.name == name for each in denied)

    def __str__(self) -> str:
        """Return the decision path."""
        return "\n".join(words.lines(self.explanation))

    def __repr__(self) -> str:
        """Return the answer in a line, for what pytest says of a failed assertion."""
        return f"<{words.summary(self.explanation)}>"


class PolicyMesh:
    """The mesh that manifests would make."""

    def __init__(self, manifests: Iterable[str | Path]) -> None:
        self.manifests = tuple(map(Path, manifests))
        self._ground = folder_ground(self.manifests)
        self._calls: list[Call] = []

    def call(
        self,
        source: str,
        target: str,
        path: str = "/",
        *,
        method: str | None = None,
        headers: Mapping[str, str] | None = None,
        http2: bool = False,
        address: str | None = None,
    ) -> Call:
        """Return what would become of a request.

        Args:
            source: a workload, `[NAMESPACE/]NAME`, or an address.
            target: what the client would write, `NAME[:PORT]`; the port may be left out where there is only one.
            path: with a query, if there is one.
            method: GET unless told, and POST where the target speaks gRPC.
            headers: other fields.
            http2: whether the client speaks HTTP/2 where both are understood.
            address: what a name outside stands for.
        """
        fields = tuple((name.lower(), value) for name, value in (headers or {}).items())
        question = Question(source, target, path, method, fields, http2=http2, address=address)
        return self._asked(question)

    def connect(self, source: str, target: str) -> Call:
        """Return what would become of a connection that is not HTTP."""
        return self._asked(Question(source, target, tcp=True))

    def split(
        self, source: str, target: str, path: str = "/", *, headers: Mapping[str, str] | None = None
    ) -> dict[str, float]:
        """Return the share of each backend that a request may get to."""
        return self.call(source, target, path, headers=headers).split

    def said(self) -> str:
        """Return the decision paths of the last calls."""
        return "\n\n".join(map(str, self._calls))

    def _asked(self, question: Question) -> Call:
        call = Call(explain(self._ground, question))
        self._calls = [*self._calls, call][-REMEMBERED:]
        return call

    def fresh(self) -> "PolicyMesh":
        """Return the same mesh for another test, whose calls are its own."""
        other = object.__new__(PolicyMesh)
        other.manifests, other._ground, other._calls = self.manifests, self._ground, []
        return other
