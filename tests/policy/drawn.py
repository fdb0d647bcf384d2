"""Policies of a tenant, drawn at random from few names, so that they meet."""

from dataclasses import replace
from typing import Any

import hypothesis.strategies as st

from tests.policy.objects import (
    RAW,
    WHERE,
    account,
    by_name,
    by_network,
    meta,
    names,
    networks,
    older,
    policy,
    rate_limit,
    route,
    rule,
    server,
    to_route,
    to_server,
)
from tulle.model.authorization import POLICY_GROUP, EgressNetwork, Network, Ref
from tulle.model.external import ExternalWorkload, WorkloadPort
from tulle.model.objects import Metadata
from tulle.model.policies import Policy
from tulle.model.route import BackendRef, GrpcMatch, HttpMatch, ParentRef, PathMatch
from tulle.model.workload import LabelSelector
from tulle.policy.authorizations import DefaultPolicy

SHOP, OTHER = "shop", "other"


def one_of(*values: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(values)


created = one_of(None, "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z")
few_names = one_of("web", "read")
somewhere = one_of(None, SHOP, OTHER)
ACCESS = tuple(each.value for each in DefaultPolicy)
PROTOCOLS = ("unknown", "HTTP/1", "HTTP/2", "gRPC", "opaque", "TLS")
RULES = (
    rule(),
    rule(HttpMatch(PathMatch("prefix", "/read"))),
    rule(backends=(BackendRef(Ref("", "Service", "web", SHOP), 80, 1, (), WHERE),)),
)
GRPC_RULES = (rule(), rule(GrpcMatch("Members", "Get")))


def parents(namespaces: st.SearchStrategy[str | None]) -> st.SearchStrategy[ParentRef]:
    kinds = (("", "Service"), (POLICY_GROUP, "Server"), (POLICY_GROUP, "EgressNetwork"))
    return st.builds(
        lambda kind, name, namespace, port: ParentRef(*kind, name, namespace, port),
        one_of(*kinds),
        few_names,
        namespaces,
        one_of(None, 80, 443),
    )


def external_workload(of: Metadata, address: str) -> ExternalWorkload:
    """Return a process outside the cluster."""
    return ExternalWorkload(
        of, "vm.example", "vm.example", (WorkloadPort(443),), (address,), True, RAW, WHERE
    )


def policies(namespace: str, reach: st.SearchStrategy[str | None]) -> st.SearchStrategy[list[Policy]]:
    """Return what a tenant may make in its namespace; `reach` are the namespaces that its references name."""
    metas = st.builds(lambda name, age: replace(meta(name, namespace), created=age), few_names, created)
    required = st.lists(
        st.one_of(
            st.builds(by_name, few_names, reach),
            st.builds(by_network, few_names, reach),
            st.builds(account, few_names, reach),
        ),
        max_size=2,
    )
    targets = st.one_of(
        few_names.map(to_server),
        few_names.map(to_route),
        one_of(
            Ref("", "Namespace", SHOP), Ref("", "Namespace", OTHER), Ref(POLICY_GROUP, "Server", "web", SHOP)
        ),
    )
    http = st.builds(
        lambda of, rules, to: route("", *rules, meta=of, parents=tuple(to)),
        metas,
        st.lists(one_of(*RULES), max_size=2),
        st.lists(parents(reach), min_size=1, max_size=2),
    )
    grpc = st.builds(
        lambda of, rules, to: route("", *rules, meta=of, parents=tuple(to), kind="GRPCRoute"),
        metas,
        st.lists(one_of(*GRPC_RULES), max_size=1),
        st.lists(parents(reach), min_size=1, max_size=2),
    )
    bare = st.builds(
        lambda of, to, kind: route("", rule(), meta=of, parents=(to,), kind=kind),
        metas,
        parents(reach),
        one_of("TLSRoute", "TCPRoute"),
    )
    made = st.one_of(
        st.builds(
            lambda of, port, protocol, access, selector: server(
                meta=of, port=port, protocol=protocol, access_policy=access, pods=selector
            ),
            metas,
            one_of(8080, "http", 4191),
            one_of(*PROTOCOLS),
            one_of(*ACCESS),
            one_of(LabelSelector(), LabelSelector({"app": "web"})),
        ),
        st.builds(
            lambda of, target, refs: replace(policy("", target, *refs), meta=of), metas, targets, required
        ),
        st.builds(
            lambda of, one: replace(names("", one), meta=of), metas, one_of("*", "*.a.example", "b.example")
        ),
        st.builds(lambda of: replace(networks("", Network("192.0.2.0/24")), meta=of), metas),
        st.builds(lambda of, anyone: older("", meta=of, unauthenticated=anyone), metas, st.booleans()),
        st.builds(lambda of, total: replace(rate_limit("", total=total), meta=of), metas, one_of(1, 100)),
        st.builds(
            lambda of, allow: EgressNetwork(of, allow, (Network("203.0.113.0/24"),), RAW, WHERE),
            metas,
            st.booleans(),
        ),
        st.builds(external_workload, metas, one_of("203.0.113.9", "203.0.113.10")),
        http,
        grpc,
        bare,
    )
    return st.lists(made, min_size=1, max_size=8)
