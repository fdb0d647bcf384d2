"""Decodes ExternalWorkloads. Their status is part of the input: whoever runs one says there whether it is ready."""

import ipaddress

from tulle.model.external import ExternalWorkload, WorkloadPort
from tulle.model.objects import Metadata
from tulle.rules.metadata import head
from tulle.rules.pods import PROTOCOLS
from tulle.rules.schema import PORT_NAME, Fields, pattern_of, shown

NAME = pattern_of("a name of at most 253 characters", r"\S+", 253)


def external_workload(fields: Fields) -> ExternalWorkload:
    """Decode an ExternalWorkload."""
    meta = head(fields)
    return fields.need("spec", lambda spec: external_workload_spec(spec, meta, fields))


def external_workload_spec(spec: Fields, meta: Metadata, whole: Fields) -> ExternalWorkload:
    """Decode an ExternalWorkload's own part; its first version spells one field another way."""
    first = whole.text("apiVersion", "").endswith("/v1alpha1")
    identity, server_name = spec.need("meshTls" if first else "meshTLS", mesh_tls)
    spec.at_most("workloadIPs", 1 if first else 2)
    addresses = tuple(filter(None, spec.each("workloadIPs", address)))
    if len({ipaddress.ip_address(each).version for each in addresses}) < len(addresses):
        spec.wrong("workloadIPs", "expected at most one address of each family")
    return ExternalWorkload(
        meta=meta,
        identity=identity,
        server_name=server_name,
        ports=spec.each("ports", port, unique="name"),
        addresses=addresses,
        ready=is_ready(whole.plain("status")),
        raw=whole.raw(),
        source=whole.position,
    )


def mesh_tls(fields: Fields) -> tuple[str, str]:
    """Decode which name to expect, and which one to ask for."""
    return fields.need_text("identity", NAME), fields.need_text("serverName", NAME)


def port(fields: Fields) -> WorkloadPort:
    """Decode a port."""
    number, name = fields.port("port"), fields.text("name", None, PORT_NAME)
    return WorkloadPort(number or 1, name, fields.choice("protocol", PROTOCOLS, "TCP"))


def address(fields: Fields) -> str:
    """Decode an address; a wrong one is empty."""
    text = fields.need_text("ip")
    try:
        return str(ipaddress.ip_address(text)) if text else ""
    except ValueError:
        fields.wrong("ip", f"expected an address, found {shown(text)}")
        return ""


def is_ready(status: object) -> bool:
    """Say whether a status has the condition that counts."""
    conditions = status.get("conditions") if isinstance(status, dict) else None
    return isinstance(conditions, list) and any(
        isinstance(of, dict) and (of.get("type"), of.get("status")) == ("Ready", "True") for of in conditions
    )
