"""The files that tell a pod who and where it is."""

from tests.local.builders import one, pod
from tulle.local.order import PodOrder
from tulle.local.plan import WorkloadKey
from tulle.model.workload import Pod
from tulle.rules.injection import Membership

ADDRESSES = ("10.77.0.5", "fd77::5")


def order(spec: str = "") -> PodOrder:
    lone = one(Pod, pod(spec=spec))
    key = WorkloadKey("default", "Pod", "lone")
    return PodOrder(key, "lone", None, "r", {}, {}, {}, lone.spec, lone.source, Membership(False), uid="u")


def test_names_are_searched_as_in_a_cluster() -> None:
    assert order().etc(ADDRESSES)["resolv.conf"] == (
        "search default.svc.cluster.local svc.cluster.local cluster.local\n"
        "nameserver 10.77.0.1\n"
        "nameserver fd77::1\n"
        "options ndots:5\n"
    )


def test_a_pod_finds_itself_and_its_aliases() -> None:
    etc = order("subdomain: db\n  hostAliases: [{ip: 10.0.0.1, hostnames: [a, b]}]").etc(ADDRESSES)

    assert etc["hosts"].splitlines() == [
        "127.0.0.1 localhost",
        "::1 localhost",
        "10.77.0.5 lone.db.default.svc.cluster.local lone",
        "fd77::5 lone.db.default.svc.cluster.local lone",
        "10.0.0.1 a b",
    ]
    assert etc["hostname"] == "lone\n"
