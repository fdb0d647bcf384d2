"""Tulle, a service mesh: `tulle.Mesh` runs one on this machine."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tulle.mesh import Mesh

__all__ = ["Mesh"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Load `Mesh` on first use: the command line must not wait for an HTTP client to say `--help`."""
    if name == "Mesh":
        from tulle.mesh import Mesh

        return Mesh
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
