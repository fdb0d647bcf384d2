"""Where a mesh keeps its files, and whether it is alive.

A mesh is a name. Its state folder goes with it (`down` removes it); its persistent folder, with the CA and
the volumes, stays until `down --volumes`. A process is known by its number *and* its start time: numbers are
used again, and a stranger must never be taken for the mesh, least of all to be killed.
"""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tulle.model.errors import HostError, SettingError

NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?")
START_TIME_FIELD = 19
"""Field 22 of /proc/PID/stat, counted from behind the command's closing bracket."""
THREADS_FIELD = 17
"""Field 20."""
MAX_SOCKET_PATH = 107
"""What `sockaddr_un` holds."""


class Process(msgspec.Struct, frozen=True):
    """One process of a mesh, as the state file names it; its number is the host's."""

    pid: int
    start_time: int
    role: str = ""

    def alive(self) -> bool:
        """Say whether this very process still runs."""
        return start_time(self.pid) == self.start_time


class StateFile(msgspec.Struct, frozen=True):
    """What a running mesh writes down about itself."""

    name: str
    processes: tuple[Process, ...] = ()
    init: int | None = None


@dataclass(frozen=True, slots=True)
class Places:
    """The folders of one mesh."""

    name: str
    state: Path
    persistent: Path

    @property
    def supervisor_socket(self) -> Path:
        """Where the supervisor answers."""
        return self.state / "supervisor.sock"

    @property
    def controller_socket(self) -> Path:
        """Where the controller answers."""
        return self.state / "controller.sock"

    @property
    def log(self) -> Path:
        """What the supervisor says."""
        return self.state / "logs" / "supervisor.log"

    @property
    def failed_start(self) -> Path:
        """What the supervisor said the last time that it did not start; the state folder is gone then."""
        return self.persistent / "failed-start.log"

    def make(self) -> None:
        """Create the folders, for nobody else to look into.

        Raises:
            HostError: a folder cannot be made, or its path is too long for a socket in it.
        """
        if len(os.fsencode(self.controller_socket)) > MAX_SOCKET_PATH:
            raise HostError(f"{self.state} is too long for a socket in it; set a shorter TULLE_STATE_DIR")
        for folder in (self.state.parent, self.state, self.persistent, self.log.parent):
            mode = 0o755 if folder == self.state.parent and os.geteuid() == 0 else 0o700
            try:
                folder.mkdir(mode=mode, parents=True, exist_ok=True)
                owner = folder.lstat().st_uid
            except OSError as error:
                raise HostError(f"cannot create {folder}: {error.strerror}") from error
            if owner != os.geteuid() and os.geteuid() != 0:
                # Somebody else could have made a folder of this name in /tmp, to look into our keys.
                raise HostError(f"{folder} belongs to user {owner}; remove it or set TULLE_STATE_DIR")

    def read(self) -> StateFile | None:
        """Return what the mesh wrote down, or None if there is nothing that can be read."""
        try:
            return msgspec.json.decode((self.state / "state.json").read_bytes(), type=StateFile)
        except (OSError, msgspec.MsgspecError):
            return None

    def write(self, state: StateFile) -> None:
        """Write down what belongs to the mesh."""
        draft = self.state / "state.json.draft"
        draft.write_bytes(msgspec.json.encode(state))
        draft.rename(self.state / "state.json")

    def running(self) -> bool:
        """Say whether any process of the mesh is alive."""
        state = self.read()
        return state is not None and any(process.alive() for process in state.processes)

    def exists(self) -> bool:
        """Say whether anything of the mesh is left."""
        return self.state.exists()

    def kill(self) -> None:
        """End what is left of the mesh; the kernel ends everything inside its process namespace."""
        state = self.read()
        for process in state.processes if state is not None else ():
            if process.alive():
                os.kill(process.pid, signal.SIGKILL)

    def remove(self, *, volumes: bool) -> None:
        """Remove the state folder and, if wanted, what was to outlive it."""
        for folder in (self.state, *((self.persistent,) if volumes else ())):
            shutil.rmtree(folder, ignore_errors=True)
            if folder.exists() and os.geteuid() != 0:
                # Pods of a plain user write files with his subordinate ids, which only these may remove.
                command = [
                    "unshare",
                    "--user",
                    "--map-root-user",
                    "--map-auto",
                    "rm",
                    "-rf",
                    "--",
                    str(folder),
                ]
                subprocess.run(command, check=False, capture_output=True)


def places(name: str, environment: Mapping[str, str]) -> Places:
    """Return the folders of a mesh for this user.

    Raises:
        SettingError: the name cannot be part of a path.
    """
    if not NAME.fullmatch(name):
        raise SettingError(
            f'"{name}" cannot name a mesh; use at most 32 lower-case letters, digits and, inside, "-"'
        )
    state, persistent = bases(environment)
    return Places(name, state / name, persistent / name)


def names(environment: Mapping[str, str]) -> list[str]:
    """Return the meshes that are running or left something behind."""
    base, _ = bases(environment)
    try:
        found = sorted(path.name for path in base.iterdir() if path.is_dir())
    except OSError:
        return []
    return [name for name in found if NAME.fullmatch(name)]


def bases(environment: Mapping[str, str]) -> tuple[Path, Path]:
    """Return the folders that hold the state of every mesh, and their persistent part."""
    if chosen := environment.get("TULLE_STATE_DIR"):
        return Path(chosen).absolute() / "run", Path(chosen).absolute() / "lib"
    if os.geteuid() == 0:
        return Path("/run/tulle"), Path("/var/lib/tulle")
    runtime = environment.get("XDG_RUNTIME_DIR")
    home = Path(environment.get("XDG_STATE_HOME") or Path(environment.get("HOME", "/")) / ".local/state")
    # One level more under XDG_RUNTIME_DIR: other programs have folders there, and names must not meet.
    return Path(runtime) / "tulle" if runtime else Path(f"/tmp/tulle-{os.geteuid()}"), home / "tulle"


def identified(pid: int, role: str) -> Process:
    """Return a process with its start time; one that is gone already gets none that fits."""
    return Process(pid, start_time(pid) or -1, role)


def start_time(pid: int) -> int | None:
    """Return when a process started, in ticks since boot; None if there is none, or only its zombie.

    A zombie with threads is none yet: the kernel ends a process namespace with the last thread of its first process.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat[stat.rindex(")") + 1 :].split()
    gone = fields[0] == "X" or (fields[0] == "Z" and int(fields[THREADS_FIELD]) <= 1)
    return None if gone else int(fields[START_TIME_FIELD])
