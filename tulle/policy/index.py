"""Which policy applies to a port of a pod, and to an address or name that a client connects to.

Pure: it reads the `World` and returns values. It decides which objects, defaults and annotations apply; what
they let in or where they lead, request by request, is the proxy's decision.
"""

from ipaddress import ip_network

from tulle.model.authorization import Network
from tulle.model.pod import TrustDomain
from tulle.model.service import ObjectName
from tulle.model.world import World, external_topic, pod_topic
from tulle.policy.authorizations import DefaultPolicy
from tulle.policy.servers import Ground, InboundPort, PortPolicy, Workload, of_external, of_pod
from tulle.policy.targets import TargetIndex, Unknown


class PolicyIndex:
    """Answers from the world as it is at the moment of asking."""

    def __init__(
        self,
        world: World,
        *,
        cluster_domain: str,
        cluster_networks: tuple[str, ...],
        default: DefaultPolicy,
        trust: TrustDomain,
        controller: str,
    ) -> None:
        self._world = world
        self.targets = TargetIndex(
            world, cluster_domain=cluster_domain, cluster_networks=tuple(map(ip_network, cluster_networks))
        )
        self._ground = Ground(default, tuple(map(Network, cluster_networks)), trust, controller)

    def inbound(
        self, name: ObjectName, port: int, *, external: bool = False
    ) -> tuple[InboundPort | Unknown, frozenset[str]]:
        """Return what applies to the port of a pod, or of an external workload, and the topics it depends on."""
        own = frozenset({external_topic(name.namespace) if external else pod_topic(name)})
        workload = self._workload(name, external)
        if workload is None:
            return Unknown(f"no {'external workload' if external else 'pod'} {name}"), own
        policy = PortPolicy(self._world, self._ground, workload, port)
        return policy.find(), own | policy.topics

    def _workload(self, name: ObjectName, external: bool) -> Workload | None:
        if external:
            found = self._world.external_workload(name)
            return of_external(found, self._world) if found else None
        pod = self._world.pod(name)
        return of_pod(pod) if pod else None
