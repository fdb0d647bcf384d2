"""What a source says about the world: an object is now so, or is gone."""

from dataclasses import dataclass

from tulle.model.endpoint import Slice
from tulle.model.pod import Pod
from tulle.model.service import Namespace, ObjectName, Service

Object = Service | Slice | Pod | Namespace


@dataclass(frozen=True, slots=True)
class Key:
    """Names one object among all kinds."""

    kind: type[Object]
    name: ObjectName


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
    name = ObjectName("", item.name) if isinstance(item, Namespace) else item.name
    return Key(type(item), name)
