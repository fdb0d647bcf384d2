"""What the mesh's name server answers. Pure: a snapshot and a question go in, an answer comes out.

It knows the names of Kubernetes' DNS specification and nothing else: a name outside the cluster domain does not
exist, and is said not to at once, unless pods have a way out that it could lead to. Answers live five seconds, as
in a cluster; a headless service's addresses come in another order each time, as many clients take the first.
"""

import ipaddress
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from tulle.local.addresses import CLUSTER_DOMAIN
from tulle.local.endpoints import PodFacts, pods_behind, port_of
from tulle.local.watch import Seen
from tulle.model.objects import Service

TTL_S = 5
UDP_BYTES = 512
"""What an answer over UDP may have where the question says nothing else."""
AUTHORITY = f"ns.dns.{CLUSTER_DOMAIN}. hostmaster.{CLUSTER_DOMAIN}. 1 7200 1800 86400 {TTL_S}"

Shuffle = Callable[[list[str]], None]


@dataclass(frozen=True, slots=True)
class Zone:
    """All records by name and type; a name above another one exists too, without records."""

    records: dict[str, dict[str, list[str]]] = field(default_factory=dict)

    def find(self, name: str) -> dict[str, list[str]] | None:
        """Return a name's records by type; None if there is no such name."""
        return self.records.get(name.lower().rstrip("."))


def zone(seen: Seen) -> Zone:
    """Return every name of the mesh."""
    made: defaultdict[str, defaultdict[str, list[str]]] = defaultdict(lambda: defaultdict(list))

    def add(name: str, kind: str, value: str) -> None:
        if value not in made[name][kind]:
            made[name][kind].append(value)

    def add_address(name: str, address: str) -> None:
        add(name, "AAAA" if ":" in address else "A", address)

    for service in seen.services:
        _add_service(service, seen.pods, add, add_address)
    for pod in seen.pods:
        for address in pod.addresses:
            add_address(f"{_dashed(address)}.{pod.namespace}.pod.{CLUSTER_DOMAIN}", address)
    for name in list(made):
        parent = name.partition(".")[2]
        while parent and parent not in made:
            made[parent] = defaultdict(list)
            parent = parent.partition(".")[2]
    return Zone({name: dict(kinds) for name, kinds in made.items()})


def answer(known: Zone, question: bytes, *, longest: int | None, shuffle: Shuffle) -> bytes | None:
    """Return what to say to a message; None for one that is no question at all."""
    try:
        query = dns.message.from_wire(question)
    except (dns.exception.DNSException, ValueError):
        return None
    if query.flags & dns.flags.QR or not query.question:
        return None
    response = dns.message.make_response(query)
    response.flags |= dns.flags.AA
    asked = query.question[0]
    name, kind = asked.name.to_text(omit_final_dot=True), dns.rdatatype.to_text(asked.rdtype)
    found = known.find(name)
    if found is None:
        response.set_rcode(dns.rcode.NXDOMAIN)
    else:
        for held in (kind, "CNAME") if kind not in found else (kind,):
            values = list(found.get(held, ()))
            shuffle(values)
            if values:
                response.answer.append(dns.rrset.from_text_list(asked.name, TTL_S, "IN", held, values))
        _add_targets(known, response)
    if not response.answer:
        response.authority.append(dns.rrset.from_text(f"{CLUSTER_DOMAIN}.", TTL_S, "IN", "SOA", AUTHORITY))
    if longest is None:
        return response.to_wire()
    return _fitting(response, max(longest, query.payload if query.edns >= 0 else UDP_BYTES))


def is_outside(known: Zone, question: bytes) -> bool:
    """Say whether a question is about a name of the world outside: not the mesh's, and of several parts."""
    try:
        query = dns.message.from_wire(question)
    except (dns.exception.DNSException, ValueError):
        return False
    if query.flags & dns.flags.QR or not query.question:
        return False
    name = query.question[0].name.to_text(omit_final_dot=True).lower()
    inside = name == CLUSTER_DOMAIN or name.endswith(f".{CLUSTER_DOMAIN}")
    return "." in name and not inside and known.find(name) is None


def fitted(reply: bytes, question: bytes, longest: int | None) -> bytes:
    """Return somebody else's reply, shortened to what the asker takes.

    Raises dns.exception.DNSException where it is no message.
    """
    if longest is None:
        return reply
    query = dns.message.from_wire(question)
    room = max(longest, query.payload if query.edns >= 0 else UDP_BYTES)
    return reply if len(reply) <= room else _fitting(dns.message.from_wire(reply), room)


def failed(question: bytes) -> bytes:
    """Return the reply that nobody outside could be asked."""
    response = dns.message.make_response(dns.message.from_wire(question))
    response.set_rcode(dns.rcode.SERVFAIL)
    return response.to_wire()


def _add_service(
    service: Service,
    pods: tuple[PodFacts, ...],
    add: Callable[[str, str, str], None],
    add_address: Callable[[str, str], None],
) -> None:
    base = f"{service.meta.name}.{service.meta.namespace}.svc.{CLUSTER_DOMAIN}"
    if service.external_name:
        add(base, "CNAME", f"{service.external_name.rstrip('.')}.")
        return
    for address in service.cluster_ips:
        add_address(base, address)
        add(_reverse(address), "PTR", f"{base}.")
    for port in service.ports:
        if port.name and not service.headless:
            add(f"_{port.name}._{port.protocol.lower()}.{base}", "SRV", f"0 100 {port.port} {base}.")
    if not service.headless:
        return
    for pod in pods_behind(service, pods):
        named = pod.subdomain == service.meta.name
        for address in pod.addresses:
            own = f"{pod.hostname if named else _dashed(address)}.{base}"
            add_address(base, address)
            add_address(own, address)
            add(_reverse(address), "PTR", f"{own}.")
            for port in service.ports:
                number = port_of(pod, port)
                if port.name and number is not None:
                    add(f"_{port.name}._{port.protocol.lower()}.{base}", "SRV", f"0 100 {number} {own}.")


def _add_targets(known: Zone, response: dns.message.Message) -> None:
    """Add the addresses of what an answer names, which saves the client the next question."""
    for rrset in list(response.answer):
        if rrset.rdtype != dns.rdatatype.SRV:
            continue
        for record in rrset:
            found = known.find(record.target.to_text()) or {}
            for kind in ("A", "AAAA"):
                if kind in found:
                    response.additional.append(
                        dns.rrset.from_text_list(record.target, TTL_S, "IN", kind, found[kind])
                    )


def _fitting(response: dns.message.Message, longest: int) -> bytes:
    """Return an answer for UDP; one that is too long says that TCP has the whole of it."""
    try:
        return response.to_wire(max_size=longest)
    except dns.exception.TooBig:
        response.answer.clear()
        response.additional.clear()
        response.flags |= dns.flags.TC
        return response.to_wire()


def _dashed(address: str) -> str:
    return address.replace(".", "-").replace(":", "-")


def _reverse(address: str) -> str:
    return ipaddress.ip_address(address).reverse_pointer
