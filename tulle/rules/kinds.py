"""Decodes each kind of object that is run or used here, and says which kinds there are."""

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

from tulle.model.authorization import GATEWAY_GROUP, POLICY_GROUP
from tulle.model.objects import (
    ConfigMap,
    Metadata,
    Namespace,
    PersistentVolumeClaim,
    Secret,
    Service,
    ServiceAccount,
    ServicePort,
    ServiceType,
)
from tulle.model.policies import Policy
from tulle.model.workload import (
    Deployment,
    Job,
    LabelSelector,
    Pod,
    PodTemplate,
    RollingUpdate,
    StatefulSet,
)
from tulle.rules.authorizations import (
    authorization_policy,
    egress_network,
    mesh_tls_authentication,
    network_authentication,
    rate_limit,
    server,
    server_authorization,
)
from tulle.rules.external import external_workload
from tulle.rules.metadata import head, labels, metadata_outside, selector
from tulle.rules.pods import PROTOCOLS, pod_spec, pod_template
from tulle.rules.profiles import service_profile
from tulle.rules.routes import reference_grant, route
from tulle.rules.schema import KEY, PORT_NAME, SUBDOMAIN, Fields

Object = (
    Deployment
    | StatefulSet
    | Job
    | Pod
    | Service
    | ConfigMap
    | Secret
    | PersistentVolumeClaim
    | ServiceAccount
    | Namespace
    | Policy
)

SERVICE_TYPES: tuple[ServiceType, ...] = get_args(ServiceType)
MAX_REPLICAS = 1000
"""More processes than one machine has room for; a typing error should not fill it."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind that is understood: the API versions it comes in and what reads it."""

    api_versions: tuple[str, ...]
    decode: Callable[[Fields], Object]


def check_selected(fields: Fields, wanted: LabelSelector, template: PodTemplate) -> None:
    """Report a workload that would not own the pods that it makes."""
    empty = not wanted.labels and not wanted.expressions
    if not fields.has("selector"):
        return
    if empty:
        fields.wrong("selector", "expected matchLabels or matchExpressions, found neither")
    elif not wanted.matches(template.labels):
        mine = ", ".join(f"{key}={value}" for key, value in template.labels.items()) or "none"
        fields.wrong("selector", f"expected a selector that matches the template's labels ({mine})")


def check_restart(fields: Fields, template: PodTemplate, allowed: tuple[str, ...]) -> None:
    """Report a restart policy that the workload does not allow."""
    if template.spec.restart_policy not in allowed:
        words = " or ".join(allowed)
        text = f"expected {words}, found {template.spec.restart_policy}"
        fields.wrong("template", f"spec.restartPolicy: {text}")


# Workloads


def deployment(fields: Fields) -> Deployment:
    """Decode a Deployment."""
    meta = head(fields)
    return fields.need("spec", lambda spec: deployment_spec(spec, meta, fields))


def deployment_spec(spec: Fields, meta: Metadata, whole: Fields) -> Deployment:
    """Decode a Deployment's own part."""
    spec.known("progressDeadlineSeconds", "revisionHistoryLimit")
    wanted = spec.need("selector", selector)
    template = spec.need("template", pod_template)
    check_selected(spec, wanted, template)
    check_restart(spec, template, ("Always",))
    return Deployment(
        meta=meta,
        replicas=spec.integer("replicas", 1, high=MAX_REPLICAS),
        selector=wanted,
        template=template,
        rolling=spec.inside("strategy", deployment_strategy, RollingUpdate("25%", "25%")),
        min_ready_s=spec.integer("minReadySeconds", 0),
        paused=spec.boolean("paused", False),
        raw=whole.raw(),
        source=whole.position,
    )


def deployment_strategy(fields: Fields) -> RollingUpdate | None:
    """Decode how a Deployment replaces its pods."""
    if fields.choice("type", ("RollingUpdate", "Recreate"), "RollingUpdate") == "Recreate":
        if fields.has("rollingUpdate"):
            fields.wrong("rollingUpdate", "expected only with type: RollingUpdate")
        return None
    return fields.inside("rollingUpdate", rolling_update, RollingUpdate("25%", "25%"))


def rolling_update(fields: Fields) -> RollingUpdate:
    """Decode the bounds of a rolling update."""
    rolling = RollingUpdate(
        max_surge=fields.count_or_percent("maxSurge", "25%"),
        max_unavailable=fields.count_or_percent("maxUnavailable", "25%"),
    )
    if rolling.max_surge in (0, "0%") and rolling.max_unavailable in (0, "0%"):
        fields.wrong("maxUnavailable", "expected more than 0 because maxSurge is 0 as well")
    return rolling


def stateful_set(fields: Fields) -> StatefulSet:
    """Decode a StatefulSet."""
    meta = head(fields)
    return fields.need("spec", lambda spec: stateful_set_spec(spec, meta, fields))


def stateful_set_spec(spec: Fields, meta: Metadata, whole: Fields) -> StatefulSet:
    """Decode a StatefulSet's own part."""
    spec.known("persistentVolumeClaimRetentionPolicy", "revisionHistoryLimit")
    wanted = spec.need("selector", selector)
    claims = spec.each("volumeClaimTemplates", claim)
    # A claim template is a volume of each pod, though no list of volumes names it.
    template = spec.need(
        "template", lambda inner: pod_template(inner, tuple(one.meta.name for one in claims))
    )
    check_selected(spec, wanted, template)
    check_restart(spec, template, ("Always",))
    on_delete, partition = spec.inside("updateStrategy", stateful_set_strategy, (False, 0))
    return StatefulSet(
        meta=meta,
        replicas=spec.integer("replicas", 1, high=MAX_REPLICAS),
        selector=wanted,
        service_name=spec.text("serviceName", "", SUBDOMAIN),
        template=template,
        claims=claims,
        parallel=spec.choice("podManagementPolicy", ("OrderedReady", "Parallel"), None) == "Parallel",
        on_delete=on_delete,
        partition=partition,
        first_ordinal=spec.inside("ordinals", lambda ordinals: ordinals.integer("start", 0), 0),
        min_ready_s=spec.integer("minReadySeconds", 0),
        raw=whole.raw(),
        source=whole.position,
    )


def stateful_set_strategy(fields: Fields) -> tuple[bool, int]:
    """Decode whether pods are replaced only when deleted, and the first ordinal that is replaced."""
    on_delete = fields.choice("type", ("RollingUpdate", "OnDelete"), None) == "OnDelete"
    return on_delete, fields.inside("rollingUpdate", stateful_set_rolling, 0)


def stateful_set_rolling(fields: Fields) -> int:
    """Decode the partition of a rolling update."""
    fields.ignored("maxUnavailable")
    return fields.integer("partition", 0)


def job(fields: Fields) -> Job:
    """Decode a Job."""
    meta = head(fields)
    return fields.need("spec", lambda spec: job_spec(spec, meta, fields))


def job_spec(spec: Fields, meta: Metadata, whole: Fields) -> Job:
    """Decode a Job's own part."""
    spec.known("manualSelector", "podReplacementPolicy", "selector")
    spec.ignored("backoffLimitPerIndex", "managedBy", "maxFailedIndexes", "podFailurePolicy", "successPolicy")
    template = spec.need("template", pod_template)
    if spec.has("template"):
        check_restart(spec, template, ("Never", "OnFailure"))
    completions = spec.integer("completions", None, low=1)
    indexed = spec.choice("completionMode", ("NonIndexed", "Indexed"), None) == "Indexed"
    if indexed and completions is None:
        spec.missing("completions", "a whole number, because completionMode is Indexed")
    return Job(
        meta=meta,
        template=template,
        parallelism=spec.integer("parallelism", 1, high=MAX_REPLICAS),
        completions=completions if completions is not None or spec.has("parallelism") else 1,
        indexed=indexed,
        backoff_limit=spec.integer("backoffLimit", 6),
        active_deadline_s=spec.integer("activeDeadlineSeconds", None, low=1),
        ttl_after_finished_s=spec.integer("ttlSecondsAfterFinished", None),
        suspended=spec.boolean("suspend", False),
        raw=whole.raw(),
        source=whole.position,
    )


def pod(fields: Fields) -> Pod:
    """Decode a Pod."""
    meta = head(fields)
    return Pod(meta, fields.need("spec", pod_spec), raw=fields.raw(), source=fields.position)


# Services


def service(fields: Fields) -> Service:
    """Decode a Service."""
    meta = head(fields)
    return fields.need("spec", lambda spec: service_spec(spec, meta, fields))


def service_spec(spec: Fields, meta: Metadata, whole: Fields) -> Service:
    """Decode a Service's own part."""
    spec.known(
        "allocateLoadBalancerNodePorts", "externalTrafficPolicy", "healthCheckNodePort", "internalTrafficPolicy",
        "ipFamilies", "ipFamilyPolicy", "loadBalancerClass", "loadBalancerIP", "trafficDistribution",
    )  # fmt: skip
    spec.ignored("externalIPs", "loadBalancerSourceRanges", "sessionAffinityConfig")
    if spec.choice("sessionAffinity", ("None", "ClientIP"), "None") == "ClientIP":
        spec.wrong("sessionAffinity", "not acted on here", "note")
    kind: ServiceType = spec.choice("type", SERVICE_TYPES, "ClusterIP")
    address = spec.text("clusterIP", "")
    addresses = spec.texts("clusterIPs") or ((address,) if address else ())
    ports = spec.each("ports", service_port, unique="name")
    external_name = spec.text("externalName", None, SUBDOMAIN)
    headless = "None" in addresses
    if kind == "ExternalName":
        if external_name is None:
            spec.missing("externalName", "a host name, because type is ExternalName")
    elif not ports and not headless:
        spec.missing("ports", "at least one port")
    if headless and kind != "ClusterIP":
        spec.wrong("clusterIP", f"expected an address or nothing with type: {kind}, found None")
    if len(ports) > 1:
        for port in ports:
            if port.name is None:
                text = "missing; expected a name, because there is more than one port"
                spec.report.add(port.source, spec.under("ports") + ".name", text)
    return Service(
        meta=meta,
        type=kind,
        headless=headless,
        cluster_ips=() if headless else addresses,
        selector=labels(spec, "selector"),
        ports=ports,
        publish_not_ready=spec.boolean("publishNotReadyAddresses", False),
        external_name=external_name,
        raw=whole.raw(),
        source=whole.position,
    )


def service_port(fields: Fields) -> ServicePort:
    """Decode a port of a Service."""
    fields.known("nodePort")
    port = fields.port("port")
    return ServicePort(
        name=fields.text("name", None, PORT_NAME),
        port=port,
        target=fields.port_or_name("targetPort", port),
        protocol=fields.choice("protocol", PROTOCOLS, "TCP"),
        app_protocol=fields.text("appProtocol", None),
        source=fields.position,
    )


# Data and names


def config_map(fields: Fields) -> ConfigMap:
    """Decode a ConfigMap."""
    fields.known("immutable")
    meta = head(fields)
    data = fields.text_map("data", keys=KEY)
    binary = base64_map(fields, "binaryData")
    for key in data.keys() & binary.keys():
        fields.wrong("binaryData", f"{key} is in data already")
    return ConfigMap(meta, data, binary, raw=fields.raw(), source=fields.position)


def secret(fields: Fields) -> Secret:
    """Decode a Secret."""
    fields.known("immutable")
    meta = head(fields)
    texts = fields.text_map("stringData", keys=KEY)
    data = base64_map(fields, "data") | {key: text.encode() for key, text in texts.items()}
    return Secret(meta, fields.text("type", "Opaque"), data, raw=fields.raw(), source=fields.position)


def base64_map(fields: Fields, key: str) -> dict[str, bytes]:
    """Decode a mapping from key to base64."""
    found: dict[str, bytes] = {}
    for name, text in fields.text_map(key, keys=KEY).items():
        try:
            found[name] = base64.b64decode("".join(text.split()), validate=True)
        except (binascii.Error, ValueError):
            fields.wrong(key, f"{name}: expected base64; plain text goes into stringData or data")
    return found


def claim(fields: Fields) -> PersistentVolumeClaim:
    """Decode a PersistentVolumeClaim; every claim gets a folder, whatever its size and class."""
    meta = head(fields)
    fields.need("spec", claim_spec)
    return PersistentVolumeClaim(meta, raw=fields.raw(), source=fields.position)


def claim_spec(fields: Fields) -> None:
    """Check what is asked for."""
    fields.known(
        "dataSource",
        "dataSourceRef",
        "selector",
        "storageClassName",
        "volumeAttributesClassName",
        "volumeName",
    )
    if fields.choice("volumeMode", ("Filesystem", "Block"), "Filesystem") == "Block":
        fields.wrong("volumeMode", "expected Filesystem; there are no block devices here")
    modes = ("ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod")
    for mode in fields.texts("accessModes"):
        if mode not in modes:
            fields.wrong("accessModes", f"expected {', '.join(modes)}, found {mode}")
    if not fields.has("accessModes"):
        fields.missing("accessModes", "a list such as [ReadWriteOnce]")
    fields.need("resources", claim_resources)


def claim_resources(fields: Fields) -> None:
    """Check the size that is asked for."""
    fields.quantities("limits")
    if "storage" not in fields.quantities("requests"):
        fields.missing("requests.storage", "a quantity such as 1Gi")


def service_account(fields: Fields) -> ServiceAccount:
    """Decode a ServiceAccount."""
    fields.known("automountServiceAccountToken", "imagePullSecrets", "secrets")
    return ServiceAccount(head(fields), raw=fields.raw(), source=fields.position)


def namespace(fields: Fields) -> Namespace:
    """Decode a Namespace."""
    fields.known("apiVersion", "kind", "spec", "status")
    meta = fields.need("metadata", metadata_outside)
    return Namespace(meta, raw=fields.raw(), source=fields.position)


def versions(group: str, *names: str) -> tuple[str, ...]:
    """Return the API versions of a group, the newest first."""
    return tuple(f"{group}/{name}" for name in names)


POLICIES: dict[str, Kind] = {
    "Server": Kind(versions(POLICY_GROUP, "v1beta3", "v1beta2", "v1beta1", "v1alpha1"), server),
    "ServerAuthorization": Kind(versions(POLICY_GROUP, "v1beta1", "v1alpha1"), server_authorization),
    "AuthorizationPolicy": Kind(versions(POLICY_GROUP, "v1alpha1"), authorization_policy),
    "MeshTLSAuthentication": Kind(versions(POLICY_GROUP, "v1alpha1"), mesh_tls_authentication),
    "NetworkAuthentication": Kind(versions(POLICY_GROUP, "v1alpha1"), network_authentication),
    "EgressNetwork": Kind(versions(POLICY_GROUP, "v1alpha1"), egress_network),
    "HTTPLocalRateLimitPolicy": Kind(versions(POLICY_GROUP, "v1alpha1"), rate_limit),
    "HTTPRoute": Kind(
        (
            *versions(GATEWAY_GROUP, "v1", "v1beta1", "v1alpha2"),
            *versions(POLICY_GROUP, "v1beta3", "v1beta2", "v1beta1", "v1alpha1"),
        ),
        route,
    ),
    "GRPCRoute": Kind(versions(GATEWAY_GROUP, "v1", "v1alpha2"), route),
    "TLSRoute": Kind(versions(GATEWAY_GROUP, "v1", "v1alpha3", "v1alpha2"), route),
    "TCPRoute": Kind(versions(GATEWAY_GROUP, "v1", "v1alpha2"), route),
    "ReferenceGrant": Kind(versions(GATEWAY_GROUP, "v1", "v1beta1", "v1alpha2"), reference_grant),
    "ServiceProfile": Kind(("linkerd.io/v1alpha2", "linkerd.io/v1alpha1"), service_profile),
    "ExternalWorkload": Kind(
        ("workload.linkerd.io/v1beta1", "workload.linkerd.io/v1alpha1"), external_workload
    ),
}
"""The kinds that say who may talk to whom and which way."""

KINDS: dict[str, Kind] = {
    "Deployment": Kind(("apps/v1",), deployment),
    "StatefulSet": Kind(("apps/v1",), stateful_set),
    "Job": Kind(("batch/v1",), job),
    "Pod": Kind(("v1",), pod),
    "Service": Kind(("v1",), service),
    "ConfigMap": Kind(("v1",), config_map),
    "Secret": Kind(("v1",), secret),
    "PersistentVolumeClaim": Kind(("v1",), claim),
    "ServiceAccount": Kind(("v1",), service_account),
    "Namespace": Kind(("v1",), namespace),
    **POLICIES,
}
