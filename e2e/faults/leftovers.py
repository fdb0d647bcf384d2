"""What a mesh could leave behind on a machine: processes, namespaces, mounts, packet rules, links, files.

Other meshes may run on the same machine, and other programs come and go; the kernel gives the numbers of processes
and namespaces to others at once. So a process counts where it descends from the mesh or carries its state folder in
its arguments or mounts; a namespace where a process still holds it that held it while the mesh ran; everything else
where the mesh's own folder or the host's tables name it.
"""

import contextlib
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tulle.testing import LiveMesh

KINDS = ("net", "mnt", "pid", "uts", "ipc", "user")


@dataclass(frozen=True, slots=True)
class Seen:
    """Everything of the mesh at one moment."""

    processes: dict[int, str]
    """Command lines of the mesh's processes by number."""
    held: dict[tuple[int, str], frozenset[str]]
    """The mesh's namespaces that a process is in or has open, by its number and start time."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What a mesh must not have changed."""

    mounts: tuple[str, ...]
    links: frozenset[str]
    rules: str

    @classmethod
    def now(cls) -> "Machine":
        """Look at the host."""
        mounts = tuple(sorted(Path("/proc/self/mounts").read_text().splitlines()))
        return cls(mounts, frozenset(os.listdir("/sys/class/net")), said("nft", "list", "ruleset"))


def said(*command: str) -> str:
    """Return what a program prints; nothing where there is no such program."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return ""


def look(mesh: LiveMesh) -> Seen:
    """Look at a mesh that runs."""
    own = {link(os.getpid(), kind) for kind in KINDS}
    processes = mesh.processes()
    inside = {link(pid, kind) for pid in processes for kind in KINDS} - own - {""}
    held = {(pid, start(pid)): holds(pid) & inside for pid in numbers()}
    return Seen(processes, {key: names for key, names in held.items() if names})


def left(mesh: LiveMesh, seen: Seen) -> list[str]:
    """Return what is left of a mesh that was ended; nothing is as it should be."""
    found: list[str] = []
    for (pid, begun), names in seen.held.items():
        if start(pid) == begun:
            found += [
                f"process {pid}: {seen.processes.get(pid, '')} holds {name}" for name in names & holds(pid)
            ]
    folder = str(mesh.api.places.state)
    for pid in numbers():
        command = read(pid, "cmdline").replace("\0", " ")
        if f"--name {mesh.name} " in command or folder in command:
            found.append(f"process {pid}: {command}")
        if folder in read(pid, "mounts"):
            found.append(f"a mount in the namespace of process {pid} ({command})")
    if mesh.api.places.state.exists():
        found += [f"file {path}" for path in mesh.api.places.state.rglob("*")] or [f"folder {folder}"]
    return found


def numbers() -> list[int]:
    """Return the numbers of all processes."""
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def holds(pid: int) -> frozenset[str]:
    """Return the namespaces that a process is in, and what it has open."""
    found = {link(pid, kind) for kind in KINDS}
    with contextlib.suppress(OSError):
        for entry in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                found.add(os.readlink(f"/proc/{pid}/fd/{entry}"))
    return frozenset(found)


def link(pid: int, kind: str) -> str:
    """Return a namespace of a process."""
    try:
        return os.readlink(f"/proc/{pid}/ns/{kind}")
    except OSError:
        return ""


def read(pid: int, file: str) -> str:
    """Return a file of a process."""
    try:
        return Path(f"/proc/{pid}/{file}").read_text(errors="replace")
    except OSError:
        return ""


def start(pid: int) -> str:
    """Return when a process started; nothing for one that ended, even if nobody has collected it."""
    fields = read(pid, "stat").rpartition(")")[2].split()
    return fields[19] if fields and fields[0] not in "ZX" else ""
