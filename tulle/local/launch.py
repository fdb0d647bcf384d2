"""How the supervisor gets the namespaces that it lives in: the command line that makes them.

It becomes the first process of a PID namespace, so the kernel ends everything of the mesh when it ends, and has
mounts, a host name and semaphores of its own. The network stays the host's: the mesh's own network is made inside,
and the supervisor, which runs nothing of the user's, opens published ports where people look for them.

A plain user also gets a user namespace in which he is root: with the ids of /etc/subuid where `newuidmap` is
installed, else with a single one. Only there is it true that applications and the proxy share a uid.
"""

import os
import pwd
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path

from tulle.local import kernel
from tulle.local.places import Process, StateFile, start_time
from tulle.model.errors import HostError

IDS_NEEDED = 65536
INSIDE = "--inside"
SINGLE_ID = "--single-id"


def arguments(own: Sequence[str], *, plain_user: bool, many_ids: bool) -> list[str]:
    """Return what to execute; `own` is the supervisor's command line."""
    user = ["--user", "--map-root-user", *(["--map-auto"] if many_ids else [])] if plain_user else []
    return [
        "unshare",
        *user,
        "--pid",
        "--mount",
        "--uts",
        "--ipc",
        "--",
        *own,
    ]


def has_subordinate_ids(user: str, uid: int, *, tools: bool, files: Sequence[str]) -> bool:
    """Say whether a user has enough ids of his own; `files` are the texts of /etc/subuid and /etc/subgid."""

    def enough(text: str) -> bool:
        for line in text.splitlines():
            name, _, rest = line.strip().partition(":")
            count = rest.rpartition(":")[2]
            if name in (user, str(uid)) and count.isdigit() and int(count) >= IDS_NEEDED:
                return True
        return False

    return tools and all(enough(text) for text in files)


def enter(own: Sequence[str]) -> None:
    """Become the supervisor in namespaces of its own; does not return.

    Raises HostError where unshare is missing.
    """
    plain_user = os.geteuid() != 0
    many_ids = not plain_user or _many_ids()
    command = arguments(
        [*own, *([SINGLE_ID] if not many_ids else [])], plain_user=plain_user, many_ids=many_ids
    )
    try:
        os.execvp(command[0], command)
    except OSError as error:
        raise HostError(
            f"unshare cannot be run: {error.strerror}; it is in the package util-linux"
        ) from error


def become_first() -> None:
    """Go on as the first process of the new PID namespace; the old process waits, and ends as that one does.

    It hands on the signals that ask for an end. (`unshare --fork` would swallow them.)
    """
    child = os.fork()
    if child == 0:
        kernel.end_with_parent(signal.SIGKILL)
        return
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os.kill(child, signal.SIGTERM))
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def settle(name: str) -> StateFile:
    """Find out what the host calls our processes, then see only our own; returns what to write down.

    Called once by the first process of the namespaces, whose /proc is still the host's.
    """
    stat = Path("/proc/self/stat").read_text()
    own, parent = int(os.readlink("/proc/self")), int(stat[stat.rindex(")") + 1 :].split()[1])
    processes = tuple(
        Process(pid, started, role)
        for pid, role in ((parent, "outer"), (own, "supervisor"))
        if (started := start_time(pid)) is not None
    )
    kernel.mount("", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("proc", "/proc", kind="proc", flags=kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    return StateFile(name, processes, own)


def _many_ids() -> bool:
    tools = all(shutil.which(tool) for tool in ("newuidmap", "newgidmap"))
    texts: list[str] = []
    for file in ("/etc/subuid", "/etc/subgid"):
        try:
            texts.append(Path(file).read_text())
        except OSError:
            return False
    uid = os.getuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = ""
    return has_subordinate_ids(name, uid, tools=tools, files=texts)
