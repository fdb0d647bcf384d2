"""Keeps the mesh's authority on disk: one file for state and keys, so that it is whole or absent.

The bundle beside it is for whoever starts proxies: it is what a new proxy must trust *now*, and is
read anew for each one. It is written before the state in which it matters is acted on.
"""

import contextlib
import os
from pathlib import Path

import msgspec

from tulle.identity.certificates import Authority
from tulle.identity.rotation import Phase, State
from tulle.model.errors import SettingError

STATE_FILE = "authority.json"
BUNDLE_FILE = "ca-bundle.crt"


class _Authority(msgspec.Struct):
    certificate: str
    key: str


class _State(msgspec.Struct):
    root: _Authority
    issuer: _Authority
    epoch: int
    phase: Phase
    other_root: _Authority | None = None


class Store:
    """The folder of the mesh's authority."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self) -> State | None:
        """Return what was saved, None on first start; raises SettingError for a file that is broken."""
        path = self._folder / STATE_FILE
        try:
            read = msgspec.json.decode(path.read_bytes(), type=_State)
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError as error:
            raise SettingError(
                f"{path}: not a mesh's authority ({error}); restore it, or remove it"
            ) from error
        other = _from(read.other_root) if read.other_root else None
        return State(_from(read.root), _from(read.issuer), read.epoch, read.phase, other)

    def save(self, state: State) -> None:
        """Replace what is stored; whoever reads meanwhile finds the old or the new."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        other = _to(state.other_root) if state.other_root else None
        written = _State(_to(state.root), _to(state.issuer), state.epoch, state.phase, other)
        self._write(BUNDLE_FILE, state.bundle_pem.encode(), 0o644)
        self._write(STATE_FILE, msgspec.json.encode(written), 0o600)

    def _write(self, name: str, content: bytes, mode: int) -> None:
        path = self._folder / name
        fresh = path.with_suffix(".new")
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)


def _from(read: _Authority) -> Authority:
    return Authority(read.certificate, read.key)


def _to(authority: Authority) -> _Authority:
    return _Authority(authority.certificate_pem, authority.key_pem)
