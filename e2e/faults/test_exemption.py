"""What is exempt from the redirection is out of an application's reach: the proxy's user, and the packet mark."""

import json
import sys

from e2e.faults.steady import CLIENT, server
from tulle.rules.firewall import MARK, PROXY_UID
from tulle.testing import LiveMesh

TRY = f"""
import json, os, socket
said = {{}}
def attempt(name, what):
    try:
        said[name] = what()
    except OSError as error:
        said[name] = type(error).__name__
made = socket.socket()
attempt("mark", lambda: made.setsockopt(socket.SOL_SOCKET, 36, {MARK}))
attempt("user", lambda: os.setuid({PROXY_UID}))
attempt("raw", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 6).close())
attempt("namespace", lambda: os.unshare(0x10000000) if hasattr(os, "unshare") else os.setuid({PROXY_UID}))
attempt("uid", os.getuid)
status = open("/proc/self/status").read()
said["capabilities"] = [line.split()[1] for line in status.splitlines() if line.startswith("Cap")]
print(json.dumps(said))
"""


async def test_an_application_cannot_get_past_its_proxy(mesh: LiveMesh) -> None:
    await mesh.up(CLIENT, server(1))

    done = await mesh.api.exec("client", [sys.executable, "-c", TRY])
    said = json.loads(done.stdout)

    assert said["mark"] == said["user"] == said["raw"] == said["namespace"] == "PermissionError"
    assert set(said["capabilities"]) == {"0" * 16}
    assert said["uid"] not in (0, PROXY_UID)
    before = await counted(mesh)
    assert (await mesh.call("client", "http://web/")).status == 200
    assert await counted(mesh) == before + 1, "the call did not go through the proxy"


async def counted(mesh: LiveMesh) -> float:
    """Return how many requests left through the client's proxy."""
    text = await mesh.api.proxy_metrics("client")
    return sum(
        float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line.startswith("request_total{") and 'direction="outbound"' in line
    )
