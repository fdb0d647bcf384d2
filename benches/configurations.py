"""Configurations of the other proxies: text in, text out.

Each pair is: listen on loopback in the client's pod, mutual TLS 1.3 to the server's pod, loopback to the origin;
one worker, no access log, no limit that a cell could reach. Everything else is as the proxy comes.
"""

import json
from dataclasses import dataclass
from typing import Any, Literal

from benches.certificates import CLIENT_NAME, SERVER_NAME, Certificates, Identity
from benches.rig import ADDRESSES, PORTS, SERVER

Side = Literal["client", "server"]
Hop = Literal["h1", "h2", "tcp"]
"""What is spoken between the two."""

ENTRY = "127.0.0.1:9000"
MIDDLE_PORT = 9443
MIDDLE = f"{ADDRESSES[SERVER]}:{MIDDLE_PORT}"
MANY = 8_192
"""More connections than any cell has, and few enough for the usual limit of descriptors."""


@dataclass(frozen=True, slots=True)
class Pair:
    """What two proxies are configured for."""

    hop: Hop
    protocol: str
    certificates: Certificates

    @property
    def origin(self) -> str:
        """Where the server's side sends to."""
        return f"127.0.0.1:{PORTS[self.protocol]}"

    @property
    def http2(self) -> bool:
        """Tell whether the application speaks HTTP/2."""
        return self.protocol == "grpc"

    def identity(self, side: Side) -> Identity:
        """Return what a side proves."""
        return self.certificates.client if side == "client" else self.certificates.server


def haproxy(pair: Pair, side: Side) -> str:
    """Return haproxy.cfg."""
    own, authority = pair.identity(side).both, pair.certificates.authority
    plain = " proto h2" if pair.http2 else ""
    alpn = "" if pair.hop == "tcp" else f" alpn {'h2' if pair.hop == 'h2' else 'http/1.1'}"
    secured = f"ssl crt {own} ca-file {authority} verify required ssl-min-ver TLSv1.3{alpn}"
    if side == "client":
        bind = f"bind {ENTRY}{plain}"
        server = f"server in {MIDDLE} {secured} verifyhost {SERVER_NAME} sni str({SERVER_NAME})"
    else:
        bind = f"bind {MIDDLE} {secured}"
        server = f"server origin {pair.origin}{plain}"
    mode = "mode tcp" if pair.hop == "tcp" else "mode http\n  http-reuse always"
    return f"""
global
  nbthread 1
  maxconn {MANY}
  tune.ssl.default-dh-param 2048
defaults
  {mode}
  maxconn {MANY}
  timeout connect 5s
  timeout client 300s
  timeout server 300s
listen pair
  {bind}
  {server} maxconn {MANY} pool-max-conn -1
"""


def nginx(pair: Pair, side: Side, folder: str) -> str:
    """Return nginx.conf; HTTP/1 only."""
    own, authority = pair.identity(side), pair.certificates.authority
    if side == "client":
        listen, upstream, scheme = ENTRY, MIDDLE, "https"
        security = f"""
      proxy_ssl_certificate {own.chain};
      proxy_ssl_certificate_key {own.key};
      proxy_ssl_trusted_certificate {authority};
      proxy_ssl_verify on;
      proxy_ssl_name {SERVER_NAME};
      proxy_ssl_server_name on;
      proxy_ssl_protocols TLSv1.3;"""
    else:
        listen, upstream, scheme = f"{MIDDLE} ssl", pair.origin, "http"
        security = f"""
      ssl_certificate {own.chain};
      ssl_certificate_key {own.key};
      ssl_client_certificate {authority};
      ssl_verify_client on;
      ssl_protocols TLSv1.3;"""
    temporary = "\n".join(
        f"  {kind}_temp_path {folder}/{kind}-{side};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""
worker_processes 1;
daemon off;
pid {folder}/nginx-{side}.pid;
error_log stderr;
worker_rlimit_nofile {MANY * 2};
events {{ worker_connections {MANY}; }}
http {{
  access_log off;
{temporary}
  proxy_max_temp_file_size 0;
  keepalive_requests 100000000;
  keepalive_timeout 300s;
  upstream next {{
    server {upstream};
    keepalive 512;
    keepalive_requests 100000000;
  }}
  server {{
    listen {listen};{security if side == "server" else ""}
    location / {{
      proxy_pass {scheme}://next;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;{security if side == "client" else ""}
    }}
  }}
}}
"""


def nghttpx(pair: Pair, side: Side) -> list[str]:
    """Return the arguments; HTTP/2 between the two."""
    own, authority = pair.identity(side), pair.certificates.authority

    def address(text: str) -> str:
        return ",".join(text.rsplit(":", 1))

    flags = [
        "--conf=/dev/null",
        "--workers=1",
        "--tls-min-proto-version=TLSv1.3",
        "--errorlog-file=/dev/stderr",
    ]
    flags += ["--backend-keep-alive-timeout=300", "--no-ocsp"]
    if side == "client":
        flags += [f"--frontend={address(ENTRY)};no-tls"]
        flags += [f"--backend={address(MIDDLE)};;tls;proto=h2;sni={SERVER_NAME}"]
        flags += [f"--cacert={authority}", f"--client-cert-file={own.chain}"]
        flags += [f"--client-private-key-file={own.key}"]
        return flags
    flags += [f"--frontend={address(MIDDLE)}", "--verify-client", f"--verify-client-cacert={authority}"]
    flags += [f"--backend={address(pair.origin)}" + (";;proto=h2" if pair.http2 else "")]
    return [*flags, str(own.key), str(own.chain)]


def envoy(pair: Pair, side: Side) -> str:
    """Return a bootstrap as JSON, which is YAML too."""
    client = side == "client"
    listen = ENTRY if client else MIDDLE
    chain: dict[str, Any] = {"filters": [_envoy_filter(pair)]}
    cluster: dict[str, Any] = {
        "name": "next",
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": {
            "thresholds": [dict.fromkeys(("max_connections", "max_pending_requests", "max_requests"), MANY)]
        },
        "load_assignment": {
            "cluster_name": "next",
            "endpoints": [
                {
                    "lb_endpoints": [
                        {"endpoint": {"address": _envoy_address(MIDDLE if client else pair.origin)}}
                    ]
                }
            ],
        },
    }
    if pair.hop != "tcp":
        http2 = pair.hop == "h2" if client else pair.http2
        explicit = "http2_protocol_options" if http2 else "http_protocol_options"
        cluster["typed_extension_protocol_options"] = {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": _envoy_type("extensions.upstreams.http.v3.HttpProtocolOptions"),
                "explicit_http_config": {explicit: {}},
            }
        }
    if client:
        cluster["transport_socket"] = _envoy_tls(pair, side, "UpstreamTlsContext", {"sni": SERVER_NAME})
    else:
        required = {"require_client_certificate": True}
        chain["transport_socket"] = _envoy_tls(pair, side, "DownstreamTlsContext", required)
    listener = {"name": "pair", "address": _envoy_address(listen), "filter_chains": [chain]}
    return json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}}, indent=1)


def _envoy_filter(pair: Pair) -> dict[str, Any]:
    if pair.hop == "tcp":
        return {
            "name": "envoy.filters.network.tcp_proxy",
            "typed_config": {
                "@type": _envoy_type("extensions.filters.network.tcp_proxy.v3.TcpProxy"),
                "stat_prefix": "pair",
                "cluster": "next",
            },
        }
    manager = "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    route = {"match": {"prefix": "/"}, "route": {"cluster": "next", "timeout": "0s"}}
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": _envoy_type(manager),
            "stat_prefix": "pair",
            "codec_type": "AUTO",
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
            "http_filters": [
                {
                    "name": "envoy.filters.http.router",
                    "typed_config": {"@type": _envoy_type("extensions.filters.http.router.v3.Router")},
                }
            ],
        },
    }


def _envoy_tls(pair: Pair, side: Side, context: str, more: dict[str, Any]) -> dict[str, Any]:
    own = pair.identity(side)
    peer = SERVER_NAME if side == "client" else CLIENT_NAME
    common: dict[str, Any] = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificates": [
            {"certificate_chain": {"filename": str(own.chain)}, "private_key": {"filename": str(own.key)}}
        ],
        "validation_context": {
            "trusted_ca": {"filename": str(pair.certificates.authority)},
            "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": peer}}],
        },
    }
    if pair.hop != "tcp":
        common["alpn_protocols"] = ["h2"] if pair.hop == "h2" else ["http/1.1"]
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": _envoy_type(f"extensions.transport_sockets.tls.v3.{context}"),
            "common_tls_context": common,
            **more,
        },
    }


def _envoy_address(text: str) -> dict[str, Any]:
    host, port = text.rsplit(":", 1)
    return {"socket_address": {"address": host, "port_value": int(port)}}


def _envoy_type(name: str) -> str:
    return f"type.googleapis.com/envoy.{name}"
