"""The folders that a pod's volumes are, on this machine.

What comes from ConfigMaps, Secrets and the pod's own facts is written as files and replaced file by file when it
changes, so that a reader sees the old or the new text and never half of one. Claims are folders that outlive the
mesh; everything else ends with the pod.

Nobody outside the mesh can enter the folders above, so the folders themselves may be open to every uid in the pod.
"""

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tulle.local.containers import PodFace, Settings, fact, resource
from tulle.local.rootfs import Mount
from tulle.model.errors import SettingError
from tulle.model.workload import (
    ClaimVolume,
    Container,
    DownwardVolume,
    EmptyDir,
    FieldRef,
    HostPath,
    KeysVolume,
    PodSpec,
    ProjectedVolume,
    ResourceRef,
    TokenFile,
    VolumeSource,
)

Files = dict[str, tuple[bytes, int]]
"""Contents and mode by relative path."""

HOST_PATH_KINDS: Mapping[str, Callable[[Path], bool]] = {
    "": Path.exists,
    "Directory": Path.is_dir,
    "DirectoryOrCreate": Path.is_dir,
    "File": Path.is_file,
    "FileOrCreate": Path.is_file,
    "Socket": Path.is_socket,
}


@dataclass(frozen=True, slots=True)
class Volumes:
    """Where the volumes of one pod are."""

    folder: Path
    claims: Path
    """The folder of the namespace's claims."""
    spec: PodSpec
    face: PodFace
    token: bytes
    owner: tuple[int, int]

    def prepare(self, settings: Settings) -> None:
        """Make the folders and write the files.

        Raises SettingError where a source is missing.
        """
        for volume in self.spec.volumes:
            path = self._path(volume.name, volume.content)
            match volume.content:
                case EmptyDir() | ClaimVolume():
                    path.mkdir(parents=True, exist_ok=True)
                    self._open_to_pod(path)
                case HostPath(_, kind):
                    if not HOST_PATH_KINDS.get(kind, Path.exists)(path):
                        raise SettingError(
                            f"volume {volume.name}: this machine has no {kind or 'file or folder'} {path}"
                        )
                case KeysVolume() | DownwardVolume() | ProjectedVolume():
                    path.mkdir(parents=True, exist_ok=True)
                    self._write(path, self._files(volume.content, settings))

    def refresh(self, settings: Settings) -> None:
        """Write the files anew whose sources may have changed."""
        for volume in self.spec.volumes:
            if isinstance(volume.content, KeysVolume | ProjectedVolume):
                self._write(self._path(volume.name, volume.content), self._files(volume.content, settings))

    def mounts(self, container: Container) -> tuple[Mount, ...]:
        """Return what appears where in a container."""
        contents = {volume.name: volume.content for volume in self.spec.volumes}
        found: list[Mount] = []
        for mount in container.mounts:
            content = contents[mount.volume]
            path = self._path(mount.volume, content)
            if mount.sub_path:
                path = path / mount.sub_path
                if not path.exists():
                    path.mkdir(parents=True)
                    self._open_to_pod(path)
            # A folder of the host is nothing that a pod on this machine should change.
            fixed = not isinstance(content, EmptyDir | ClaimVolume)
            read_only = mount.read_only or fixed or (isinstance(content, ClaimVolume) and content.read_only)
            found.append(Mount(str(path), mount.path, read_only))
        return tuple(found)

    def remove(self) -> None:
        """Remove what ends with the pod."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, name: str, content: VolumeSource) -> Path:
        match content:
            case ClaimVolume(claim):
                return self.claims / claim
            case HostPath(path):
                return Path(path)
            case _:
                return self.folder / name

    def _open_to_pod(self, path: Path) -> None:
        path.chmod(0o777)
        if self.spec.fs_group is not None and self.owner != (0, 0):
            os.chown(path, -1, self.spec.fs_group)
            path.chmod(0o2777)

    def _files(self, content: KeysVolume | DownwardVolume | ProjectedVolume, settings: Settings) -> Files:
        match content:
            case KeysVolume():
                return self._keys(content, settings)
            case DownwardVolume(items, mode):
                return {
                    item.path: (self._fact(item.value), mode if item.mode is None else item.mode)
                    for item in items
                }
            case ProjectedVolume(sources, mode):
                files: Files = {}
                for source in sources:
                    if isinstance(source, TokenFile):
                        files[source.path] = (self.token, mode)
                    else:
                        files |= self._files(source, settings)
                return files

    def _fact(self, value: FieldRef | ResourceRef) -> bytes:
        if isinstance(value, FieldRef):
            return fact(value.path, self.spec, self.face).encode()
        return resource(value, self.spec.containers[0], self.spec).encode()

    def _keys(self, content: KeysVolume, settings: Settings) -> Files:
        values = settings.values(content.kind, content.name)
        if values is None:
            if content.optional:
                return {}
            raise SettingError(
                f"there is no {content.kind} {content.name} in namespace {self.face.namespace}"
            )
        if not content.items:
            return {key: (value, content.mode) for key, value in values.items()}
        lacking = [item.key for item in content.items if item.key not in values]
        if lacking and not content.optional:
            raise SettingError(f"{content.kind} {content.name} has no key {', '.join(lacking)}")
        return {
            item.path: (values[item.key], content.mode if item.mode is None else item.mode)
            for item in content.items
            if item.key in values
        }

    def _write(self, folder: Path, files: Files) -> None:
        folder.chmod(0o755)
        for name, (text, mode) in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.parent.chmod(0o755)
            if path.is_file() and path.read_bytes() == text:
                continue
            fresh = path.with_name(f".{path.name}.new")
            fresh.write_bytes(text)
            fresh.chmod(mode)
            # Its owner is the pod's user, whose image would have had the right to read mode 0400 as root.
            os.chown(fresh, *self.owner)
            fresh.replace(path)
        for path in folder.rglob("*"):
            if path.is_file() and str(path.relative_to(folder)) not in files:
                path.unlink()
