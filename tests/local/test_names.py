"""What the name server answers."""

from dataclasses import replace

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
from hypothesis import given
from hypothesis import strategies as st

from tests.local.builders import one, service
from tulle.local.endpoints import PodFacts
from tulle.local.names import Zone, answer, zone
from tulle.local.watch import Seen
from tulle.model.objects import Service

PODS = tuple(
    PodFacts(
        f"db-{number}",
        "default",
        {"app": "db"},
        (f"10.77.0.{5 + number}", f"fd77::{5 + number}"),
        ready=True,
        terminating=False,
        hostname=f"db-{number}",
        subdomain="db",
        ports={"sql": 5432},
    )
    for number in range(2)
)
WEB = replace(
    one(Service, service(spec="ports: [{port: 80, name: http}]")), cluster_ips=("10.78.0.9", "fd78::9")
)
DB = one(Service, service("db", spec="clusterIP: None\n  ports: [{port: 5432, name: sql, targetPort: sql}]"))
OUT = one(Service, service("out", spec="type: ExternalName\n  externalName: example.org"))
KNOWN = zone(Seen((WEB, DB, OUT), PODS))


def ask(name: str, kind: str, known: Zone = KNOWN, *, longest: int | None = 512) -> dns.message.Message:
    said = answer(
        known, dns.message.make_query(name, kind).to_wire(), longest=longest, shuffle=lambda _: None
    )
    assert said is not None
    return dns.message.from_wire(said)


def values(name: str, kind: str) -> list[str]:
    return sorted(record.to_text() for rrset in ask(name, kind).answer for record in rrset)


def test_a_service_is_found_in_both_families() -> None:
    assert values("web.default.svc.cluster.local", "A") == ["10.78.0.9"]
    assert values("web.default.svc.cluster.local", "AAAA") == ["fd78::9"]


def test_case_does_not_matter() -> None:
    assert values("WEB.Default.svc.cluster.LOCAL", "A") == ["10.78.0.9"]


def test_a_headless_service_is_its_pods() -> None:
    assert values("db.default.svc.cluster.local", "A") == ["10.77.0.5", "10.77.0.6"]


def test_each_pod_of_a_headless_service_has_a_name_of_its_own() -> None:
    assert values("db-1.db.default.svc.cluster.local", "A") == ["10.77.0.6"]
    assert values("db-1.db.default.svc.cluster.local", "AAAA") == ["fd77::6"]


def test_named_ports_are_found_by_srv_with_the_addresses_beside() -> None:
    response = ask("_sql._tcp.db.default.svc.cluster.local", "SRV", longest=None)

    assert sorted(record.to_text() for record in response.answer[0]) == [
        "0 100 5432 db-0.db.default.svc.cluster.local.",
        "0 100 5432 db-1.db.default.svc.cluster.local.",
    ]
    assert len(response.additional) == 4
    assert values("_http._tcp.web.default.svc.cluster.local", "SRV") == [
        "0 100 80 web.default.svc.cluster.local."
    ]


def test_addresses_have_names() -> None:
    assert values("9.0.78.10.in-addr.arpa", "PTR") == ["web.default.svc.cluster.local."]
    assert values("5.0.77.10.in-addr.arpa", "PTR") == ["db-0.db.default.svc.cluster.local."]


def test_an_external_name_is_an_alias() -> None:
    assert values("out.default.svc.cluster.local", "A") == ["example.org."]


def test_what_there_is_not_is_said_not_to_exist() -> None:
    for name in ("nothing.default.svc.cluster.local", "web", "web.default", "example.org"):
        response = ask(name, "A")

        assert response.rcode() == dns.rcode.NXDOMAIN
        assert response.authority[0].ttl == 5


def test_a_name_without_records_of_the_kind_exists() -> None:
    for name in ("web.default.svc.cluster.local", "default.svc.cluster.local"):
        response = ask(name, "MX")

        assert response.rcode() == dns.rcode.NOERROR
        assert not response.answer


def test_answers_live_five_seconds() -> None:
    assert ask("web.default.svc.cluster.local", "A").answer[0].ttl == 5


def test_an_answer_that_is_too_long_points_to_tcp() -> None:
    many = tuple(replace(PODS[0], name=f"db-{n}", addresses=(f"10.77.1.{n}",)) for n in range(60))
    known = zone(Seen((DB,), many))

    short, whole = (ask("db.default.svc.cluster.local", "A", known, longest=n) for n in (512, None))

    assert short.flags & dns.flags.TC
    assert not short.answer
    assert len(whole.answer[0]) == 60


def test_an_answer_is_not_answered() -> None:
    response = ask("web.default.svc.cluster.local", "A")

    assert answer(KNOWN, response.to_wire(), longest=512, shuffle=lambda _: None) is None


@given(st.binary(max_size=100))
def test_whatever_a_client_sends_the_server_lives(message: bytes) -> None:
    answer(KNOWN, message, longest=512, shuffle=lambda _: None)
