"""Manifests as the mesh would run them, without running them: one pod of each workload, ready, with a proxy where
it would have one.
"""

from collections.abc import Iterable
from pathlib import Path

import msgspec

from tulle.explain.ground import CLUSTER_DOMAIN, CLUSTER_NETWORKS, Ground, ground, source_key
from tulle.local.addresses import Pair, PodAddresses, ServiceAddresses
from tulle.local.desired import ByHand, Folder, desired
from tulle.local.order import order_of
from tulle.local.plan import Create, Desired
from tulle.local.snapshot import Json, object_json, order_json
from tulle.model.pod import TrustDomain
from tulle.model.workload import StatefulSet
from tulle.policy.authorizations import DefaultPolicy
from tulle.rules.decode import decode_paths
from tulle.rules.injection import Site, plan
from tulle.rules.kinds import Object
from tulle.sources.snapshot import decode, objects


def folder_ground(
    paths: Iterable[Path], *, default: DefaultPolicy = DefaultPolicy.ALL_UNAUTHENTICATED
) -> Ground:
    """Compile files, and the manifests that lie directly in folders.

    Raises:
        ManifestError: the manifests have mistakes.
    """
    return compiled(decode_paths(paths).accepted(), default=default)


def compiled(
    manifests: tuple[Object, ...], *, default: DefaultPolicy = DefaultPolicy.ALL_UNAUTHENTICATED
) -> Ground:
    """Compile decoded manifests."""
    folder = Folder.of(manifests)
    services = ServiceAddresses().assign(
        f"{each.meta.namespace}/{each.meta.name}"
        for each in folder.services
        if not each.headless and each.type != "ExternalName"
    )
    addresses = PodAddresses()
    snapshot = {
        "objects": [json for each in manifests if (json := object_json(each, services)) is not None],
        "pods": [pod(folder, each, addresses.take()) for each in desired(folder, ByHand()) if each.replicas],
    }
    places = {
        source_key(each.raw, each.meta.namespace, each.meta.name): str(each.source) for each in manifests
    }
    return ground(objects(decode(msgspec.json.encode(snapshot))), places, default=default)


def pod(folder: Folder, wanted: Desired, addresses: Pair) -> Json:
    """Return the first pod of a workload as the supervisor would describe it once it runs."""
    number = wanted.workload.first_ordinal if isinstance(wanted.workload, StatefulSet) else None
    name = wanted.key.name if number is None else f"{wanted.key.name}-{number}"
    order = order_of(folder, Create(wanted, name, number), uid="")
    injection = plan(order.subject(addresses), SITE, order.membership) if order.membership.meshed else None
    return order_json(order, injection, addresses, ready=True, terminating=False)


SITE = Site(
    identity_address="",
    destination_address="",
    policy_address="",
    control_identity="",
    trust_anchors="",
    identity_folder="",
    token_file="",
    cluster_networks=CLUSTER_NETWORKS,
    identity_suffix=TrustDomain().identity("", "").removeprefix(".."),
    cluster_domain=CLUSTER_DOMAIN,
    has_proxy_uid=True,
)
"""Nobody looks these up: no proxy is started."""
