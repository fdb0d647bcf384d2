"""The file system that a container sees: this machine's, read-only, with its own places laid over it.

There is no image, so programs and libraries come from the host. Everything else that would let a pod reach out
of itself is replaced: `/tmp`, `/dev` and `/proc` are the container's own, the state of every mesh is covered, and
nothing of the host can be written, whatever the uid. A mount path that the host lacks appears through an overlay
of its nearest parent, so that manifests written for images work.

A folder that only its owner may enter (such as /root) would cut an interpreter off that was installed below it.
The paths of `reach` are therefore bound into a fresh, empty folder of that name; the rest of it stays away.

`build` runs in a thread that has a mount namespace of its own and leaves it there with the new root.
"""

import os
import stat
from dataclasses import dataclass

from tulle.local import kernel
from tulle.model.errors import HostError

# Where the new root is put together: a top-level folder that pods can do without.
STAGES = ("/boot", "/media", "/srv", "/mnt", "/opt")

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}
# Writable to uid 0 even without capabilities.
PROC_READ_ONLY = ("sys", "sysrq-trigger", "irq", "bus", "fs")
OWN = frozenset({"dev", "proc", "tmp"})
TMPFS = kernel.MS_NOSUID | kernel.MS_NODEV
MAX_LINKS = 40  # as the kernel


@dataclass(frozen=True, slots=True)
class Mount:
    """A file or folder that appears at a path."""

    source: str
    path: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Root:
    """What a container's root differs in from the host's."""

    mounts: tuple[Mount, ...] = ()
    hidden: tuple[str, ...] = ()
    reach: tuple[str, ...] = ()


def build(root: Root) -> None:
    """Put the root together and move the calling thread's mount namespace into it."""
    needed = (*root.reach, *(mount.source for mount in root.mounts))
    stage = next((s for s in STAGES if os.path.isdir(s) and not any(below(p, s) for p in needed)), None)
    if stage is None:
        raise HostError(
            f"none of the folders {', '.join(STAGES)} is free to build a pod's root in; create /boot"
        )
    kernel.mount("", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("tulle", stage, kind="tmpfs", data="mode=755")
    place = _Place(stage)
    place.take_host()
    for mount in root.mounts:
        place.make_point(mount)
    for path in root.reach:
        place.uncover(path)
    for path in root.hidden:
        place.cover(path)
    place.mount_own()
    # A folder before what is in it: the point of the inner one would pass for the outer one.
    for path in sorted(root.reach, key=lambda path: path.count("/")):
        place.reach(path)
    for mount in sorted(root.mounts, key=lambda mount: mount.path.count("/")):
        place.mount(mount)
    place.finish()
    kernel.change_root(stage)


class _Place:
    """A root that is being put together below `stage`. What was done must be done in the order of `build`."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._bound: set[str] = set()
        """Top-level folders that are the host's."""
        self._writable: list[str] = [stage]
        """Our own mounts that become read-only at the end."""

    def take_host(self) -> None:
        """Show the host's top-level folders, except what is replaced and what only its owner may enter."""
        for name in os.listdir("/"):
            here, there = f"/{name}", f"{self._stage}/{name}"
            status = os.lstat(here)
            if stat.S_ISLNK(status.st_mode):
                os.symlink(os.readlink(here), there)
            elif stat.S_ISDIR(status.st_mode):
                os.mkdir(there)
                if name not in OWN and here != self._stage and _enterable(here):
                    self._bind(here, there, recursive=True)
                    kernel.make_read_only(there)
                    self._bound.add(here)

    def make_point(self, mount: Mount) -> None:
        """Make a mount path exist that the host lacks."""
        path = self.resolve(mount.path)
        if os.path.lexists(path) or self._top(path) not in self._bound:
            return
        parent = os.path.dirname(path)
        while not os.path.isdir(parent):
            parent = os.path.dirname(parent)
        if parent not in self._writable:
            self._overlay(parent)
        _make_point(path, mount.source)

    def uncover(self, path: str) -> None:
        """Put an empty folder in the place of the one that bars the way to a path."""
        barred = first_barred(path)
        if barred is None or self._top(self._stage + barred) not in self._bound:
            return
        target = self._stage + barred
        if target not in self._writable:
            kernel.mount("tulle", target, kind="tmpfs", flags=TMPFS, data="mode=755")
            self._writable.append(target)

    def cover(self, path: str) -> None:
        """Hide a folder."""
        target = self.resolve(path)
        if os.path.isdir(target):
            kernel.mount(
                "tulle", target, kind="tmpfs", flags=TMPFS | kernel.MS_RDONLY, data="mode=0555,size=4k"
            )

    def mount_own(self) -> None:
        """Mount what every container has for itself."""
        stage = self._stage
        self._bind("/proc", f"{stage}/proc")
        for name in PROC_READ_ONLY:
            if os.path.exists(f"{stage}/proc/{name}"):
                self._bind(f"{stage}/proc/{name}", f"{stage}/proc/{name}")
                kernel.make_read_only(f"{stage}/proc/{name}")
        for path in ("/tmp", "/var/tmp"):
            if os.path.isdir(stage + path):
                kernel.mount("tulle", stage + path, kind="tmpfs", flags=TMPFS, data="mode=1777")
        for name in DEVICES:
            open(f"{stage}/dev/{name}", "w").close()
            self._bind(f"/dev/{name}", f"{stage}/dev/{name}")
        for name, target in DEVICE_LINKS.items():
            os.symlink(target, f"{stage}/dev/{name}")
        os.mkdir(f"{stage}/dev/pts")
        kernel.mount("devpts", f"{stage}/dev/pts", kind="devpts", data="newinstance,ptmxmode=0666,mode=0620")
        os.mkdir(f"{stage}/dev/shm")
        kernel.mount("tulle", f"{stage}/dev/shm", kind="tmpfs", flags=TMPFS, data="mode=1777")

    def reach(self, path: str) -> None:
        """Show a path of the host that is not in sight yet."""
        target = self._stage + path
        if os.path.exists(path) and not os.path.exists(target):
            _make_point(target, path)
            self._bind(path, target, recursive=True)
            kernel.make_read_only(target)

    def mount(self, mount: Mount) -> None:
        """Mount a volume or a file of the pod's own."""
        target = self.resolve(mount.path)
        if not os.path.lexists(target):
            _make_point(target, mount.source)
        self._bind(mount.source, target)
        if mount.read_only:
            kernel.make_read_only(target)

    def finish(self) -> None:
        """Take away the right to change what was only put together for the mount points."""
        for target in self._writable:
            kernel.mount("", target, flags=kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY)

    def resolve(self, path: str) -> str:
        """Follow the links of a path as the pod will, instead of out of the new root."""
        parts = [part for part in reversed(path.split("/")) if part]
        done: list[str] = []
        links = 0
        while parts:
            part = parts.pop()
            if part == "..":
                done = done[:-1]
                continue
            here = "/".join((self._stage, *done, part))
            if not os.path.islink(here):
                done.append(part)
                continue
            links += 1
            if links > MAX_LINKS:
                raise HostError(f"{path} leads through more than {MAX_LINKS} links")
            link = os.readlink(here)
            done = [] if link.startswith("/") else done
            parts.extend(part for part in reversed(link.split("/")) if part not in ("", "."))
        return "/".join((self._stage, *done))

    def _overlay(self, parent: str) -> None:
        """Lay a writable folder over one of the host's."""
        scratch = f"{self._stage}/.tulle/{len(self._writable)}"
        os.makedirs(f"{scratch}/upper", mode=0o700)
        os.mkdir(f"{scratch}/work")
        status = os.stat(parent)
        os.chmod(f"{scratch}/upper", stat.S_IMODE(status.st_mode))
        lower = parent.removeprefix(self._stage) or "/"
        kernel.mount(
            "tulle",
            parent,
            kind="overlay",
            flags=TMPFS,
            data=f"lowerdir={lower},upperdir={scratch}/upper,workdir={scratch}/work",
        )
        self._writable.append(parent)

    def _top(self, target: str) -> str:
        return "/" + target.removeprefix(f"{self._stage}/").partition("/")[0]

    def _bind(self, source: str, target: str, *, recursive: bool = False) -> None:
        kernel.mount(source, target, flags=kernel.MS_BIND | (kernel.MS_REC if recursive else 0))


def first_barred(path: str) -> str | None:
    """Return the first folder on the way to a path that others than its owner may not enter."""
    parts = path.strip("/").split("/")
    for count in range(1, len(parts)):
        folder = "/" + "/".join(parts[:count])
        if os.path.isdir(folder) and not _enterable(folder):
            return folder
    return None


def below(path: str, folder: str) -> bool:
    """Say whether a path is a folder or something in it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _enterable(folder: str) -> bool:
    return bool(os.stat(folder).st_mode & stat.S_IXOTH)


def _make_point(path: str, source: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if os.path.isdir(source):
        os.makedirs(path, exist_ok=True)
    else:
        open(path, "w").close()
