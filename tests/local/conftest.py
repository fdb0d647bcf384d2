"""Fixtures of the tests that need a kernel."""

import os
import shutil
from collections.abc import AsyncIterator

import pytest

from tests.local.machine import Machine, machine

TOOLS = ("ip", "nft", "unshare", "setpriv")


@pytest.fixture
async def mesh() -> AsyncIterator[Machine]:
    if os.geteuid() != 0:
        pytest.skip("needs root: pods are namespaces with uids of their own")
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)} (packages iproute2, nftables, util-linux)")
    async with machine() as made:
        yield made
