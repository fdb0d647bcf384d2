"""An application that calls another one as the first and as the last thing that it does."""

import signal
import sys
import urllib.request


def call(when: str) -> None:
    """Call and say how it went."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        status = str(opener.open("http://web/", timeout=5).status)
    except OSError as error:
        status = str(error)
    print(f"{when}: {status}", flush=True)  # noqa: T201 (that is its purpose)


signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
call("first")
if "--stay" in sys.argv:
    signal.sigwait({signal.SIGTERM})
    call("last")
