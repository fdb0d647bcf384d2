"""What all pods of a mesh stand on: its folders, its network, and how its processes are started."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tulle.local import kernel, rootfs
from tulle.local.containers import User
from tulle.local.processes import Child, Command, Namespaces, Spawner
from tulle.local.sandbox import Bridge
from tulle.model.errors import HostError
from tulle.rules.firewall import Firewall, arguments
from tulle.rules.injection import Site

LOG_MODE = 0o640


@dataclass(frozen=True, slots=True)
class Ground:
    """The parts of the mesh that every pod uses."""

    spawner: Spawner
    bridge: Bridge
    state: Path
    persistent: Path
    many_ids: bool
    """Whether processes can be given uids of their own."""
    path: str
    """The PATH of every container, tulle's own folder first."""
    reach: tuple[str, ...]
    """What pods must be able to read although a folder above is closed to them."""
    hidden: tuple[str, ...]
    """What pods must not see."""
    token_key: bytes
    site: Callable[[], Site | None]
    """None until there are trust anchors."""
    service_rules: Callable[[], str]
    changed: Callable[[], None]
    clock: Callable[[], float]
    proxy: str | None
    """The path of `tulle-proxy`; None where it is not installed."""
    stock_proxy: str | None

    def log(self, namespace: str, pod: str, container: str, owner: int) -> int:
        """Open a container's log for its next line; the descriptor is the caller's."""
        folder = self.state / "logs" / namespace / pod
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(
            folder / f"{container}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, LOG_MODE
        )
        # Programs open /dev/stdout again by name, which asks the file and not the descriptor.
        os.fchown(descriptor, owner, -1)
        return descriptor

    def redirect(self, firewall: Firewall) -> tuple[str, ...]:
        """Return the command that leads a pod's traffic to its proxy, to be run in the pod's network.

        Raises HostError where `tulle-proxy` is missing.
        """
        if self.proxy is None:
            raise HostError("tulle-proxy is not installed; build it with: make setup")
        return (self.proxy, "init", *arguments(firewall))

    async def start(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        folder: str,
        user: User,
        root: rootfs.Root,
        inside: Namespaces,
        log: int,
        keep_mark: bool = False,
    ) -> Child:
        """Start a process without privileges in a root of its own.

        Raises OSError or HostError where it cannot be started.
        """

        def prepare() -> None:
            kernel.unshare(kernel.CLONE_NEWNS)
            rootfs.build(root)
            if not os.path.isdir(folder):
                raise FileNotFoundError(f"the working folder {folder} is not there")
            if not found(argv[0], environment.get("PATH", ""), folder):
                raise FileNotFoundError(f"this machine has no program {argv[0]}")

        command = Command(
            [*unprivileged(user, many_ids=self.many_ids, keep_mark=keep_mark), *argv],
            environment,
            folder,
            stdout=log,
            stderr=log,
            inside=inside,
            prepare=prepare,
        )
        try:
            return await self.spawner.spawn(command)
        except ValueError as error:
            raise HostError(
                f"{argv[0]} cannot be started: {error} in its arguments or environment"
            ) from error


def unprivileged(user: User, *, many_ids: bool, keep_mark: bool = False) -> list[str]:
    """Return the start of a command line that gives up every privilege; `keep_mark` leaves the right to mark."""
    kept = ",+net_admin" if keep_mark else ""
    if many_ids:
        groups = f"--groups={','.join(map(str, user.groups))}" if user.groups else "--clear-groups"
        who = [f"--reuid={user.uid}", f"--regid={user.gid}", groups]
    else:
        who = ["--keep-groups"]
    return [
        "setpriv",
        *who,
        "--no-new-privs",
        f"--bounding-set=-all{kept}",
        f"--inh-caps=-all{kept}",
        "--ambient-caps=-all",
        "--",
    ]


def found(program: str, path: str, folder: str | None) -> str | None:
    """Return where a program is, as an exec from a folder would find it."""
    if "/" in program:
        places = [os.path.join(folder or "/", program)]
    else:
        places = [os.path.join(part, program) for part in path.split(":") if part]
    return next((place for place in places if os.path.isfile(place) and os.access(place, os.X_OK)), None)
