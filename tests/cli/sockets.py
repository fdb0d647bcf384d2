"""A mesh that is only its two sockets: answers are set by the test, requests are kept."""

import json
import os
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

from tulle.local.places import StateFile, identified, places


class Server(socketserver.ThreadingUnixStreamServer):
    """One of the sockets."""

    daemon_threads = True

    def __init__(self, path: str) -> None:
        super().__init__(path, Handler)
        self.answers: dict[str, tuple[int, Any]] = {}
        self.asked: list[tuple[str, str, Any]] = []


class Handler(BaseHTTPRequestHandler):
    """Answers by path, query left out."""

    server: Server

    def do_GET(self) -> None:
        self.answer(None)

    def do_POST(self) -> None:
        self.answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))

    def answer(self, body: Any) -> None:
        self.server.asked.append((self.command, self.path, body))
        status, value = self.server.answers.get(self.path.partition("?")[0], (404, {"error": "no such path"}))
        content = value.encode() if isinstance(value, str) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def address_string(self) -> str:
        return "test"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def sockets(name: str = "default") -> Iterator[tuple[Server, Server]]:
    """Listen as the supervisor and the controller of a mesh that this process is."""
    place = places(name, os.environ)
    place.make()
    place.write(StateFile(name, (identified(os.getpid(), "supervisor"),), os.getpid()))
    with (
        Server(str(place.supervisor_socket)) as supervisor,
        Server(str(place.controller_socket)) as controller,
    ):
        for server in (supervisor, controller):
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield supervisor, controller
        finally:
            supervisor.shutdown()
            controller.shutdown()
