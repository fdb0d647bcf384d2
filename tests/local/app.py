"""The program that pods of these tests run: it answers what it sees, and does what it is asked."""

import json
import os
import signal
import socket
import sys
import urllib.error
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        asked = dict(urllib.parse.parse_qsl(url.query))
        try:
            status, answer = 200, getattr(self, "on_" + (url.path.strip("/") or "name"))(asked)
        except (OSError, urllib.error.URLError) as error:
            status, answer = 500, str(error)
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def on_name(self, _: dict[str, str]) -> object:
        return socket.gethostname()

    def on_env(self, _: dict[str, str]) -> object:
        return dict(os.environ)

    def on_headers(self, _: dict[str, str]) -> object:
        return {name.lower(): value for name, value in self.headers.items()}

    def on_fetch(self, asked: dict[str, str]) -> object:
        with urllib.request.urlopen(asked["url"], timeout=3) as response:
            return json.loads(response.read())

    def on_read(self, asked: dict[str, str]) -> object:
        with open(asked["path"]) as file:
            return file.read()

    def on_list(self, asked: dict[str, str]) -> object:
        return sorted(os.listdir(asked["path"]))

    def on_write(self, asked: dict[str, str]) -> object:
        with open(asked["path"], "w") as file:
            return file.write(asked["text"])

    def on_resolve(self, asked: dict[str, str]) -> object:
        return sorted({found[4][0] for found in socket.getaddrinfo(asked["name"], 80)})

    def on_processes(self, _: dict[str, str]) -> object:
        return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]

    def on_who(self, _: dict[str, str]) -> object:
        with open("/proc/self/status") as status:
            capabilities = [line.split()[1] for line in status if line.startswith("Cap")]
        return {"uid": os.getuid(), "gid": os.getgid(), "capabilities": sorted(set(capabilities))}

    def on_healthy(self, _: dict[str, str]) -> object:
        if os.path.exists("/tmp/sick"):
            raise OSError("sick")
        return "well"

    def on_pid(self, _: dict[str, str]) -> object:
        return os.getpid()

    def on_die(self, _: dict[str, str]) -> object:
        os.kill(os.getpid(), signal.SIGKILL)
        return None

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6
    request_queue_size = 128

    def server_bind(self) -> None:
        # Not the base class's: it asks for the name of the address, which nobody here needs.
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)


if __name__ == "__main__":
    server = Server(("::", int(sys.argv[1])), Handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server.serve_forever()
