"""How to run a command inside a pod from outside: the arguments for `nsenter`.

The command joins the namespaces of a container's process and becomes what that process is: its user, its
environment, its folder, and no capability, so that nothing run by hand can do more than the application can.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tulle.model.errors import NotFound

FALLBACK_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Target:
    """A process inside a pod by its number on the host."""

    pid: int
    rootless: bool


def host_pid(init: int, inner: int) -> int:
    """Return the host's number of a process that the mesh knows by its own.

    Args:
        init: the host's number of the first process of the mesh's process namespace.
        inner: the number inside that namespace.

    Raises:
        NotFound: the process is gone.
    """
    parents: dict[int, int] = {}
    candidates: list[int] = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        status = status_of(int(entry))
        if status is None:
            continue
        parents[int(entry)] = int(status["PPid"])
        # One number for each namespace from the host's inwards: the second is the mesh's.
        numbers = status.get("NSpid", entry).split()
        if len(numbers) > 1 and int(numbers[1]) == inner:
            candidates.append(int(entry))
    for candidate in candidates:
        ancestor = candidate
        while ancestor > 1 and ancestor != init:
            ancestor = parents.get(ancestor, 0)
        if ancestor == init:
            return candidate
    raise NotFound(f"process {inner} of the mesh is gone")


def descendants(pid: int) -> list[int]:
    """Return the host's numbers of all processes that a process started, and those that they did."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        status = status_of(int(entry)) if entry.isdigit() else None
        if status is not None:
            children.setdefault(int(status["PPid"]), []).append(int(entry))
    found: list[int] = []
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def program(pid: int) -> str:
    """Return the command line of a process, or nothing if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def proxy_in(init: int, holder: int) -> int | None:
    """Return the host's number of the proxy of a pod: it has the pod's network and nothing else of it.

    Args:
        init: the host's number of the first process of the mesh's process namespace.
        holder: that of the process that holds the pod's namespaces.
    """
    network = network_of(holder)
    for pid in descendants(init):
        # The stock proxy's name ends like ours.
        if network_of(pid) == network and program(pid).partition(" ")[0].endswith("-proxy"):
            return pid
    return None


def network_of(pid: int) -> str | None:
    """Return the name of a process's network namespace, or None if it is gone."""
    try:
        return os.readlink(f"/proc/{pid}/ns/net")
    except OSError:
        return None


def status_of(pid: int) -> dict[str, str] | None:
    """Return /proc/PID/status, or None if the process is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def inside_network(pid: int, command: Sequence[str], *, rootless: bool) -> list[str]:
    """Return what to execute so that a command of the host's runs in a pod's network, with every right over it."""
    user = ["--user", "--preserve-credentials"] if rootless else []
    return ["nsenter", f"--target={pid}", "--net", *user, "--", *command]


def arguments(target: Target, command: Sequence[str]) -> list[str]:
    """Return what to execute so that a command runs inside a pod as its application does.

    Raises:
        NotFound: the process is gone.
    """
    status = status_of(target.pid)
    if status is None:
        raise NotFound("the container's process has just ended")
    user = inside_id(target.pid, "uid_map", int(status["Uid"].split()[1]))
    group = inside_id(target.pid, "gid_map", int(status["Gid"].split()[1]))
    enter = ["nsenter", f"--target={target.pid}", "--mount", "--net", "--uts", "--ipc", "--pid"]
    if target.rootless:
        enter += ["--user", "--preserve-credentials"]
    become = ["setpriv", f"--reuid={user}", f"--regid={group}", "--inh-caps=-all", "--ambient-caps=-all"]
    # In a map of one id there are no groups to clear and nobody else to become.
    become += ["--bounding-set=-all", "--no-new-privs"]
    become.append("--keep-groups" if target.rootless and user == 0 else "--clear-groups")
    settings = ["env", f"--chdir={folder(target.pid)}", "-i", *environment(target.pid)]
    return [*enter, "--", *become, *settings, *command]


def inside_id(pid: int, table: str, outside: int) -> int:
    """Return what a user or group id is called inside the user namespace of a process."""
    try:
        lines = Path(f"/proc/{pid}/{table}").read_text().splitlines()
    except OSError:
        return outside
    for line in lines:
        inner, outer, count = (int(part) for part in line.split())
        if outer <= outside < outer + count:
            return inner + outside - outer
    return outside


def environment(pid: int) -> list[str]:
    """Return a process's environment, or at least a PATH where it may not be read."""
    try:
        content = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        content = b""
    found = [os.fsdecode(variable) for variable in content.split(b"\0") if b"=" in variable]
    return found or [f"PATH={FALLBACK_PATH}"]


def folder(pid: int) -> str:
    """Return the folder that a process is in."""
    try:
        return os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return "/"
