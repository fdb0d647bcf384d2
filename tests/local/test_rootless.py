"""A mesh of a plain user, with many ids and with a single one."""

import asyncio
import os
import pwd
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.local.machine import REPOSITORY, Machine, eventually, leftovers, machine
from tests.local.manifests import app, published
from tulle.local.launch import has_subordinate_ids
from tulle.local.rootfs import first_barred

OURS = shutil.which("tulle-proxy", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
NOBODY_ELSE = 54321
"""A user whom this machine does not know, so that he has no ids but his own."""

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user"),
]


def user_with_ids() -> int | None:
    for entry in pwd.getpwall():
        texts = [Path(file).read_text() for file in ("/etc/subuid", "/etc/subgid") if Path(file).exists()]
        tools = shutil.which("newuidmap") is not None
        if (
            entry.pw_uid
            and len(texts) == 2
            and has_subordinate_ids(entry.pw_name, entry.pw_uid, tools=tools, files=texts)
        ):
            return entry.pw_uid
    return None


def becoming(uid: int) -> list[str]:
    """Return what starts a command as another user, who can reach the interpreter wherever it is installed."""
    steps = ["mount --make-rprivate /"]
    prefix = os.path.realpath(sys.base_prefix)
    barred = first_barred(prefix)
    if barred is not None:
        rest = prefix.removeprefix(barred)
        steps += [
            f"mount --bind {barred} /mnt",
            f"mount -t tmpfs -o mode=755 tulle {barred}",
            f"mkdir -p {prefix}",
            f"mount --bind /mnt{rest} {prefix}",
            "umount /mnt",
        ]
    script = " && ".join(
        [*steps, f'exec setpriv --reuid={uid} --regid={uid} --clear-groups --inh-caps=-all "$@"']
    )
    return ["unshare", "--mount", "sh", "-c", script, "sh"]


@pytest.fixture(params=["many ids", "a single id"])
async def mesh(request: pytest.FixtureRequest) -> AsyncIterator[Machine]:
    uid = user_with_ids() if request.param == "many ids" else NOBODY_ELSE
    if uid is None:
        pytest.skip("no user here has subordinate ids, or uidmap is not installed")
    async with machine(as_user=becoming(uid)) as made:
        for folder in (made.state_dir / "logs", made.persistent_dir):
            folder.mkdir(parents=True)
        for path in (made.base, *made.base.rglob("*")):
            os.chown(path, uid, uid)
        yield made


async def test_a_plain_user_can_run_a_mesh(mesh: Machine) -> None:
    await mesh.up(app(mesh) + published(mesh) + app(mesh, "api"))

    assert await mesh.fetch("http://api/") == (await mesh.pod("api"))["name"]
    assert (await mesh.ask("who"))["capabilities"] == ["0000000000000000"]
    for hidden in (mesh.state_dir, mesh.persistent_dir):
        with pytest.raises(OSError, match=r"No such file|Permission denied"):
            await mesh.ask("list", path=str(hidden))
    with pytest.raises(OSError, match=r"Read-only|Permission denied"):
        await mesh.ask("write", path=str(mesh.manifests / "x"), text="x")

    assert await mesh.stop() == 0
    await eventually(lambda: not leftovers(mesh.base), "something is left")


async def test_what_a_killed_mesh_leaves_can_be_removed_by_its_user(mesh: Machine) -> None:
    volume = "volumeMounts: [{name: work, mountPath: /scratch}]"
    await mesh.up(app(mesh, spec=volume, pod="volumes: [{name: work, emptyDir: {}}]") + published(mesh))
    await mesh.ask("write", path="/scratch/x", text="x")
    assert mesh.process is not None
    os.kill(mesh.init, signal.SIGKILL)
    await mesh.process.communicate()

    remove = f"Places('test', Path({str(mesh.state_dir)!r}), Path({str(mesh.persistent_dir)!r})).remove(volumes=True)"
    program = f"from pathlib import Path\nfrom tulle.local.places import Places\n{remove}"
    process = await asyncio.create_subprocess_exec(
        *mesh.as_user, sys.executable, "-c", program, cwd=REPOSITORY
    )
    await process.wait()

    assert not mesh.state_dir.exists()
    assert not mesh.persistent_dir.exists()


@pytest.mark.skipif(OURS is None, reason="tulle-proxy is not built")
async def test_a_plain_users_pods_are_meshed_with_and_without_a_uid_for_the_proxy(mesh: Machine) -> None:
    inside = "annotations: {linkerd.io/inject: enabled}"
    await mesh.up(app(mesh, annotations=inside) + published(mesh) + app(mesh, "api", annotations=inside))

    headers = await mesh.fetch("http://api/headers")

    assert headers["l5d-client-id"] == "default.default.serviceaccount.identity.linkerd.cluster.local"
