"""A source of endpoints in 40 lines: a JSON file such as {"shop/legacy": ["192.0.2.7:8080"]}.

Its package has an entry point of group `tulle.sources`: json = "json_endpoints:JsonEndpoints". If the
file breaks or its disk hangs, these endpoints stay as they were; nothing else notices.
"""

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path

from tulle.model.endpoint import Endpoint, Slice, SlicePort
from tulle.model.service import ObjectName, Service, ServicePort
from tulle.model.source import Sink
from tulle.model.update import Object


class JsonEndpoints:
    """Reads the file that TULLE_JSON_ENDPOINTS names once a second."""

    name = "json"

    async def run(self, sink: Sink) -> None:
        """State all that the file says; a plug-in has a thread of its own, so it may block."""
        while True:
            sink.replace(list(read(Path(os.environ["TULLE_JSON_ENDPOINTS"]))))
            await asyncio.sleep(1)


def read(path: Path) -> Iterator[Object]:
    """Make a Service of each key, with a slice for each of its addresses."""
    for key, addresses in json.loads(path.read_text()).items():
        name = ObjectName(*key.split("/"))
        yield Service(name, ports=(ServicePort(80),))
        for number, address in enumerate(addresses):
            host, _, port = address.rpartition(":")
            slice_name = ObjectName(name.namespace, f"{name.name}-json-{number}")
            yield Slice(slice_name, name, (SlicePort("", int(port)),), (Endpoint(host.strip("[]")),))
