"""What a source says about the world: an object is now so, or is gone."""

from dataclasses import dataclass

from tulle.model.endpoint import Slice
from tulle.model.pod import Pod
from tulle.model.policies import Policy
from tulle.model.route import Route
from tulle.model.service import Namespace, ObjectName, Service

Object = Service | Slice | Pod | Namespace | Policy


@dataclass(frozen=True, slots=True)
class Key:
    """Names one object among all kinds; `variant` tells the kinds apart that one type stands for."""

    kind: type[Object]
    name: ObjectName
    variant: str = ""


@dataclass(frozen=True, slots=True)
class Changed:
    """The object is there, and is now so."""

    object: Object


@dataclass(frozen=True, slots=True)
class Removed:
    """The object is gone."""

    key: Key


Update = Changed | Removed


def key_of(item: Object) -> Key:
    """Return an object's key."""
    if isinstance(item, Namespace):
        return Key(Namespace, ObjectName("", item.name))
    if isinstance(item, Route):
        return Key(Route, item.name, f"{item.kind}.{item.group}")
    return Key(type(item), item.name)
