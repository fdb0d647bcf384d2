"""What the supervisor's command line and environment say, parsed once."""

import argparse
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tulle.local.launch import INSIDE, SINGLE_ID
from tulle.local.publish import moves

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line and the environment say."""

    name: str
    state: Path
    persistent: Path
    paths: tuple[Path, ...]
    moved: Mapping[tuple[str, str, int], int]
    egress: bool
    many_ids: bool
    path: str
    proxy: str | None
    stock_proxy: str | None
    environment: Mapping[str, str]
    """What the mesh's own processes are told: nothing but what concerns them."""


def settings(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Read the command line; raises SettingError."""
    parser = argparse.ArgumentParser(prog="python -m tulle.serve.supervisor")
    parser.add_argument("--name", required=True, help="the mesh's name")
    parser.add_argument("--state-dir", type=Path, required=True, help="what goes with the mesh")
    parser.add_argument("--persistent-dir", type=Path, required=True, help="what outlives it")
    parser.add_argument("--publish", action="append", default=[], help="where a service shall be found")
    parser.add_argument("--egress", action="store_true", help="give pods a way out of the mesh")
    parser.add_argument(SINGLE_ID, action="store_true", help=argparse.SUPPRESS)
    parser.add_argument(INSIDE, action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("paths", nargs="+", type=Path, help="manifests, and folders of manifests")
    options = parser.parse_args(arguments)
    own = str(Path(sys.executable).parent)
    path = ":".join(dict.fromkeys([own, *environment.get("PATH", "").split(":"), *SYSTEM_PATH.split(":")]))
    concerning = {
        key: value for key, value in environment.items() if key.startswith("TULLE_") or key == "PYTHONPATH"
    }
    return Settings(
        name=options.name,
        state=options.state_dir.absolute(),
        persistent=options.persistent_dir.absolute(),
        paths=tuple(path.absolute() for path in options.paths),
        moved=moves(options.publish),
        egress=options.egress,
        many_ids=not options.single_id,
        path=path,
        proxy=shutil.which("tulle-proxy", path=path),
        stock_proxy=environment.get("TULLE_STOCK_PROXY") or None,
        environment={"PATH": path, "LANG": "C.UTF-8", "HOME": "/", **concerning},
    )
