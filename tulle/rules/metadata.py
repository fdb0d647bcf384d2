"""What objects of every kind have in common: metadata, labels, selectors and names of other objects."""

from typing import get_args

from tulle.model.authorization import Ref
from tulle.model.objects import Metadata
from tulle.model.workload import LabelSelector, Operator, Requirement
from tulle.rules.schema import LABEL, LABEL_KEY, LABEL_VALUE, SUBDOMAIN, TIMESTAMP, Fields

OPERATORS: tuple[Operator, ...] = get_args(Operator)
REFERABLE = {
    kind.lower(): kind
    for kind in (
        "Server", "HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "Namespace", "ServiceAccount", "Service",
        "EgressNetwork", "MeshTLSAuthentication", "NetworkAuthentication", "Gateway",
    )
}  # fmt: skip
"""Kinds that others name, in whatever case."""


def labels(fields: Fields, key: str) -> dict[str, str]:
    """Decode labels."""
    return fields.text_map(key, keys=LABEL_KEY, values=LABEL_VALUE)


def metadata(fields: Fields) -> Metadata:
    """Decode the metadata of an object inside a namespace."""
    created = api_server_fields(fields)
    return Metadata(
        name=fields.need_text("name", SUBDOMAIN),
        namespace=fields.text("namespace", "default", LABEL),
        labels=labels(fields, "labels"),
        annotations=fields.text_map("annotations", keys=LABEL_KEY),
        created=created,
    )


def metadata_outside(fields: Fields) -> Metadata:
    """Decode the metadata of an object that is in no namespace."""
    created = api_server_fields(fields)
    return Metadata(
        name=fields.need_text("name", LABEL),
        namespace="",
        labels=labels(fields, "labels"),
        annotations=fields.text_map("annotations", keys=LABEL_KEY),
        created=created,
    )


def api_server_fields(fields: Fields) -> str | None:
    """Accept what an API server writes into metadata; return when it made the object."""
    fields.known(
        "deletionGracePeriodSeconds", "deletionTimestamp", "finalizers", "generateName",
        "generation", "managedFields", "ownerReferences", "resourceVersion", "selfLink", "uid",
    )  # fmt: skip
    return fields.text("creationTimestamp", None, TIMESTAMP)


def head(fields: Fields) -> Metadata:
    """Decode what every object in a namespace has."""
    fields.known("apiVersion", "kind", "status")
    return fields.need("metadata", metadata)


def selector(fields: Fields) -> LabelSelector:
    """Decode a selector of labels."""
    return LabelSelector(labels(fields, "matchLabels"), fields.each("matchExpressions", requirement))


def requirement(fields: Fields) -> Requirement:
    """Decode one expression of a selector."""
    operator = fields.choice("operator", OPERATORS, None)
    if not fields.has("operator"):
        fields.missing("operator", "In, NotIn, Exists or DoesNotExist")
    values = frozenset(fields.texts("values"))
    if operator in ("In", "NotIn") and not values:
        fields.missing("values", "a list of texts")
    return Requirement(fields.need_text("key", LABEL_KEY), operator or "Exists", values)


def group_of(fields: Fields, default: str = "") -> str:
    """Decode the group of another object; `core` is Kubernetes' own, which has an empty name."""
    group = fields.text("group", default).lower()
    return "" if group == "core" else group


def kind_of(fields: Fields, default: str | None = None) -> str:
    """Decode the kind of another object, in the spelling of its definition."""
    kind = fields.need_text("kind") if default is None else fields.text("kind", default)
    return REFERABLE.get(kind.lower(), kind)


def local_ref(fields: Fields) -> Ref:
    """Decode the name of an object in the same namespace."""
    return Ref(group_of(fields), kind_of(fields), fields.need_text("name", SUBDOMAIN))


def ref(fields: Fields) -> Ref:
    """Decode the name of an object in this or another namespace."""
    namespace = fields.text("namespace", None, LABEL)
    return Ref(group_of(fields), kind_of(fields), fields.need_text("name", SUBDOMAIN), namespace)
