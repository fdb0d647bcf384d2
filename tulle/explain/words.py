"""A decision path in the words of the command line: the answer first, then each hop with what was looked at."""

from collections.abc import Iterator

from tulle.explain.answer import Branch, Explanation, Inbound, Outbound, Reference, Refusal, Step

MARKS = {"matched": "√", "allowed": "√", "skipped": "·", "refused": "×"}
PROTOCOLS = {
    "detect": "detects the protocol",
    "http1": "takes it as HTTP/1",
    "http2": "takes it as HTTP/2",
    "grpc": "takes it as gRPC",
    "opaque": "does not look at the bytes",
    "tls": "looks at the name in the TLS handshake",
    "invalid": "cannot read its policy",
}
BUILT_IN = {"localhost"}
"""Authorizations that stand everywhere and let in nobody from elsewhere."""


def summary(of: Explanation) -> str:
    """Return the answer in one line."""
    asked = of.asked
    what = "a connection" if asked.kind == "tcp" else f"{asked.method} {asked.path}"
    if of.allowed:
        return f"allowed: {of.client.name} → {of.target.asked}, {what}"
    refused = sum(branch.share for branch in of.branches if branch.refused)
    share = f" for {_percent(refused)} of requests" if 0 < refused < 0.9995 else ""
    status = _verdict(first_refusal(of))
    return f"{status}{share}: {of.client.name} → {of.target.asked}, {what}"


def first_refusal(of: Explanation) -> Refusal | None:
    """Return what ends the request, where something does."""
    if of.outbound and of.outbound.refusal:
        return of.outbound.refusal
    return next((branch.refused for branch in of.branches if branch.share and branch.refused), None)


def lines(of: Explanation) -> Iterator[str]:
    """Yield the whole path."""
    yield summary(of)
    yield ""
    yield f"from  {_client(of)}"
    target = of.target
    what = str(target.object) if target.object else "no service's address"
    yield f"name  {target.asked} is {what}, {target.address} port {target.port}"
    if target.remark:
        yield f"      {target.remark}"
    if of.outbound is not None:
        yield from _outbound(of.client.name, of.outbound)
    else:
        yield f"via   nothing: {of.straight}"
    for branch in of.branches:
        yield from _branch(branch)


def _client(of: Explanation) -> str:
    client = of.client
    where = f" in {client.namespace}" if client.namespace else ""
    proves = f"proves {client.identity}" if client.identity else "proves no identity"
    return f"{client.name}{where}, {client.address}, {proves}"


def _outbound(client: str, outbound: Outbound) -> Iterator[str]:
    yield f"via   the proxy of {client}, which {PROTOCOLS[outbound.protocol]}"
    if outbound.policy.kind == "EgressNetwork":
        yield f"      {outbound.policy} has a say about the address"
    yield from _steps(outbound.steps)
    yield from (f"      {limit}" for limit in outbound.limits)
    if outbound.refusal:
        yield f"      × {_answer(outbound.refusal)}"


def _branch(branch: Branch) -> Iterator[str]:
    yield f"to    {_percent(branch.share)} {branch.backend}"
    yield from (f"      {change}" for change in branch.changed)
    if branch.endpoints:
        yield f"      {', '.join(branch.endpoints)}"
    if branch.refusal:
        yield f"      × {_answer(branch.refusal)}"
    if branch.endpoints and not branch.inbound:
        yield "      no proxy stands before it: anybody gets in"
    for inbound in branch.inbound:
        yield from _inbound(inbound)


def _inbound(inbound: Inbound) -> Iterator[str]:
    pods = ", ".join(inbound.pods)
    yield f"at    the proxy of {pods}, port {inbound.port}, which {PROTOCOLS[inbound.protocol]}"
    server = inbound.server
    if server.kind == "default":
        yield f"      no Server selects the port; {server.name} is the default policy"
    else:
        yield f"      {server} selects the port"
    yield from _steps(inbound.steps)
    yield from (f"      {each}" for each in (*inbound.changed, *inbound.limits))
    if inbound.refusal:
        yield f"      × {_answer(inbound.refusal)}"


def _steps(steps: tuple[Step, ...]) -> Iterator[str]:
    for step in steps:
        if step.object and step.object.kind == "default" and step.object.name in BUILT_IN:
            continue
        yield f"      {MARKS[step.verdict]} {_subject(step)}: {step.why}"


def _subject(step: Step) -> str:
    if step.object is None:
        return step.subject
    if step.object.kind == "default":
        return f"the default {step.subject.replace('rule', 'route')} {step.object.name}"
    return f"{_named(step.object)}{'' if step.rule is None else f' rule {step.rule + 1}'}"


def _named(of: Reference) -> str:
    return str(of)


def _verdict(refusal: Refusal | None) -> str:
    if refusal is None:
        return "not served"
    if refusal.location is not None:
        return f"redirected ({refusal.status})"
    if refusal.reason == "unauthorized":
        return "denied"
    return f"refused ({refusal.reason})"


def _answer(refusal: Refusal) -> str:
    if refusal.location is not None:
        return f"answers {refusal.status}, to {refusal.location}"
    what = "closes the connection" if refusal.status is None else f"answers {refusal.status}"
    if refusal.grpc_status is not None:
        what = f"answers gRPC status {refusal.grpc_status}"
    return f"{what}: {refusal.message} ({refusal.reason})"


def _percent(share: float) -> str:
    return f"{share * 100:.3g} %"
