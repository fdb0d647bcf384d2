"""Whether a mesh can run on this machine, found out by trying, and what to do where it cannot.

A version number or a setting says little about a kernel; making the namespace or loading the rule says it all.
Every finding that is not good carries the one thing to do about it.
"""

import asyncio
import os
import resource
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tulle.local.places import Places
from tulle.model.objects import Service
from tulle.model.workload import Deployment, Job, Pod, StatefulSet
from tulle.rules.decode import decode_paths
from tulle.rules.kinds import Object

Verdict = Literal["good", "warning", "bad"]

OLDEST_NFT = (1, 0, 6)
TRIAL_S = 10
MIN_FILES = 4096
"""A proxy holds two sockets for each of a thousand connections, and some for itself."""
RULES = """
table inet trial {
  chain out { type nat hook output priority -100; policy accept;
    meta mark 0x2d4c return
    meta l4proto tcp redirect to :4140
  }
}
"""
SECOND_BRIDGE = "ip link add trial0 type bridge && ip link add trial1 type veth peer name trial2"
OVERLAY = "mount -t tmpfs t /mnt && mkdir /mnt/u /mnt/w /mnt/m && "
OVERLAY += "mount -t overlay o -o lowerdir=/usr,upperdir=/mnt/u,workdir=/mnt/w /mnt/m"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `fix` is what to do about it."""

    what: str
    verdict: Verdict
    found: str = ""
    fix: str = ""

    def __str__(self) -> str:
        parts = [f"{self.what}: {self.found}" if self.found else self.what]
        return "; ".join([*parts, self.fix] if self.fix else parts)


async def needed() -> list[Finding]:
    """Look at what nothing runs without."""
    tools = [
        tool("ip", "iproute2"),
        tool("nsenter", "util-linux"),
        tool("unshare", "util-linux"),
        await nft(),
    ]
    findings = [*tools, await namespaces()]
    if all(finding.verdict != "bad" for finding in findings):
        findings += [
            await trial("packet rules", "nft -f -", RULES),
            await trial("bridge and veth", SECOND_BRIDGE),
        ]
    return [*findings, await proxy()]


async def wanted(places: Places) -> list[Finding]:
    """Look at what makes a mesh better or longer-lived."""
    findings = [await trial("overlay file system", OVERLAY, bad="warning")]
    if os.geteuid() != 0:
        findings.append(subordinate_ids())
    return [*findings, clock(), open_files(), folder(places)]


def tool(name: str, package: str) -> Finding:
    """Look for a program."""
    path = which(name)
    if path is None:
        return Finding(name, "bad", "not installed", f"install it with: sudo apt-get install -y {package}")
    return Finding(name, "good", path)


def which(name: str) -> str | None:
    """Find a program that this machine may have."""
    return shutil.which(name, path=search_path(os.environ))


def search_path(environment: Mapping[str, str]) -> str:
    """Return where programs are: a plain user's PATH leaves out where `nft` and `ip` are."""
    return f"{environment.get('PATH', os.defpath)}:/usr/sbin:/sbin"


async def nft() -> Finding:
    """Look for nftables that is new enough."""
    finding = tool("nft", "nftables")
    if finding.verdict == "bad":
        return finding
    _, said = await tried([finding.found, "--version"])
    version = next((word.lstrip("v") for word in said.split() if word.lstrip("v")[:1].isdigit()), "0")
    numbers = tuple(int(part) for part in version.split(".") if part.isdigit())
    if numbers < OLDEST_NFT:
        return Finding("nft", "bad", f"version {version}", "1.0.6 or newer is needed: upgrade nftables")
    return Finding("nft", "good", version)


def separate() -> list[str]:
    """Return the start of a command that runs in namespaces as a mesh has them."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", *user, "--net", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child"]


async def namespaces() -> Finding:
    """Try to make namespaces."""
    what = "namespaces" if os.geteuid() == 0 else "namespaces without root"
    code, said = await tried([*separate(), "true"])
    if code == 0:
        return Finding(what, "good")
    sudo = f"or run it as root: sudo {shlex.join(sys.argv)}"
    if os.geteuid() == 0:
        return Finding(what, "bad", said, "this is a container without CAP_SYS_ADMIN; start it --privileged")
    if setting("kernel/apparmor_restrict_unprivileged_userns") == "1":
        allow = "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
        return Finding(
            what, "bad", "AppArmor forbids them, as Ubuntu does by default", f"allow them: {allow}; {sudo}"
        )
    if setting("kernel/unprivileged_userns_clone") == "0":
        allow = "sudo sysctl -w kernel.unprivileged_userns_clone=1"
        return Finding(what, "bad", "the kernel's setting forbids them", f"allow them: {allow}; {sudo}")
    if setting("user/max_user_namespaces") == "0":
        allow = "sudo sysctl -w user.max_user_namespaces=10000"
        return Finding(what, "bad", "none are allowed", f"allow them: {allow}; {sudo}")
    return Finding(what, "bad", said, sudo.removeprefix("or "))


def setting(name: str) -> str | None:
    """Return a kernel setting, or None where this kernel has none of that name."""
    try:
        return Path("/proc/sys", name).read_text().strip()
    except OSError:
        return None


async def trial(what: str, script: str, text: str = "", *, bad: Verdict = "bad") -> Finding:
    """Try something in namespaces that end with it."""
    code, said = await tried([*separate(), "sh", "-c", f"PATH=$PATH:/usr/sbin:/sbin; {script}"], text)
    if code == 0:
        return Finding(what, "good")
    fix = "this kernel lacks it; a distribution's standard kernel has it"
    return Finding(what, bad, said.splitlines()[0] if said else f"exit code {code}", fix)


async def tried(command: list[str], text: str = "") -> tuple[int, str]:
    """Run a command and return its exit code and what it said."""

    def run() -> tuple[int, str]:
        try:
            done = subprocess.run(
                command,
                input=text.encode(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=TRIAL_S,
                check=False,
            )
        except OSError as error:
            return 127, f"{command[0]}: {error.strerror}"
        except subprocess.TimeoutExpired:
            return 1, f"{command[0]} did not end within {TRIAL_S} s"
        return done.returncode, done.stdout.decode(errors="replace").strip()

    return await asyncio.to_thread(run)


async def proxy() -> Finding:
    """Look for the data plane."""
    path = proxy_path()
    if path is None:
        return Finding(
            "tulle-proxy", "bad", "not found", "in a checkout: make setup; else: pip install tulle-proxy"
        )
    code, said = await tried([path, "--version"])
    if code != 0:
        return Finding("tulle-proxy", "bad", f"{path} does not run: {said}", "build it anew: make setup")
    return Finding("tulle-proxy", "good", said)


def proxy_path() -> str | None:
    """Return where the data plane is: beside this Python first, then on the PATH."""
    beside = Path(sys.executable).parent / "tulle-proxy"
    return str(beside) if os.access(beside, os.X_OK) else shutil.which("tulle-proxy")


def subordinate_ids() -> Finding:
    """Look whether applications can have other user ids than the proxy's."""
    what = "user ids of their own"
    note = "without it applications are kept from the mesh's keys by mounts only"
    if shutil.which("newuidmap") is None:
        return Finding(what, "warning", note, "install it with: sudo apt-get install -y uidmap")
    try:
        ranges = Path("/etc/subuid").read_text().splitlines()
    except OSError:
        ranges = []
    user = os.environ.get("USER", str(os.geteuid()))
    if not any(line.partition(":")[0] in (user, str(os.geteuid())) for line in ranges):
        give = f"sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}"
        return Finding(what, "warning", note, f"give yourself some: {give}")
    return Finding(what, "good")


def clock() -> Finding:
    """Look whether the clock can be right: certificates are valid from now on, for a day."""
    installed = Path(__file__).stat().st_mtime
    if time.time() < installed - 60:
        return Finding(
            "clock", "bad", "it is behind the files of this program", "set it: sudo timedatectl set-ntp true"
        )
    return Finding("clock", "good")


def open_files() -> Finding:
    """Look how many files a process may open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < MIN_FILES:
        return Finding("open files", "warning", f"at most {hard}", f"raise it: ulimit -Hn {MIN_FILES * 4}")
    return Finding("open files", "good", "no limit" if hard == resource.RLIM_INFINITY else f"{hard}")


def folder(places: Places) -> Finding:
    """Look whether the mesh's state can be written."""
    for base in (places.state.parent, places.persistent.parent):
        existing = next(parent for parent in (base, *base.parents) if parent.exists())
        if not os.access(existing, os.W_OK):
            fix = "choose another with TULLE_STATE_DIR"
            return Finding("state folder", "bad", f"{existing} is not writable", fix)
    return Finding("state folder", "good", str(places.state))


def manifests(paths: Iterable[Path], publish: Iterable[str]) -> list[Finding]:
    """Look at manifests: what is wrong in them, ports that are taken, commands that are not here."""
    decoded = decode_paths(paths)
    findings = [Finding("manifest", "bad", str(problem)) for problem in decoded.problems]
    findings += [
        Finding("manifest", "warning", str(of)) for of in decoded.remarks if of.severity == "warning"
    ]
    if not decoded.problems:
        findings.append(Finding("manifests", "good", f"{len(decoded.objects)} objects"))
    moved = {published.partition("=")[2] for published in publish}
    findings += [
        taken for item in decoded.objects if isinstance(item, Service) for taken in ports(item, moved)
    ]
    return [*findings, *commands(decoded.objects)]


def ports(service: Service, moved: set[str]) -> list[Finding]:
    """Look whether the ports of a published service are free here."""
    if service.type != "LoadBalancer":
        return []
    findings: list[Finding] = []
    for port in service.ports:
        name = f"{service.meta.namespace}/{service.meta.name}:{port.port}"
        if name in moved or name.removeprefix("default/") in moved:
            continue
        if reason := unbindable(port.port):
            fix = f"move it with: --publish {port.port + 8000 if port.port < 1024 else port.port + 1}={name}"
            findings.append(Finding(f"port {port.port}", "bad", f"{service.source}: {reason}", fix))
        else:
            findings.append(Finding(f"port {port.port}", "good", f"free for {name}"))
    return findings


def unbindable(port: int) -> str | None:
    """Return why nothing can listen at a port of 127.0.0.1, or None if something can."""
    with socket.socket() as trial_socket:
        trial_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial_socket.bind(("127.0.0.1", port))
        except PermissionError:
            return f"a plain user may not listen at 127.0.0.1:{port}"
        except OSError as error:
            return f"127.0.0.1:{port} is taken ({error.strerror})"
    return None


def commands(objects: Iterable[Object]) -> list[Finding]:
    """Look whether this machine has the programs that containers run."""
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
    findings: list[Finding] = []
    for item in objects:
        if not isinstance(item, (Deployment, StatefulSet, Job, Pod)):
            continue
        spec = item.spec if isinstance(item, Pod) else item.template.spec
        for container in (*spec.init_containers, *spec.containers):
            program = container.command[0] if container.command else ""
            if program and "$(" not in program and shutil.which(program, path=path) is None:
                found = f'{container.source}: this machine has no "{program}"'
                findings.append(Finding("command", "bad", found, "install it, or give a path that is here"))
    return findings
