"""A command in a running container: ``true``, from the request until its exit status is known.

By the API: ours over a WebSocket on a connection of its own, TLS handshake with a client certificate included, as
``kubectl exec`` does it; docker's over its Unix socket, three plain requests, the first of which connects. By command:
``nanocloud exec``, ``podman exec``, ``docker exec``; podman's is started in other namespaces, which takes a
millisecond. The floor is ``crun exec`` from a process that is up.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
from typing import Any
from urllib.parse import urlsplit

from contenders import Ours, contenders
from disk import fresh_disk
from node import NANOCLOUD, default_environment
from peers import Peer
from report import report
from rounds import interleave, milliseconds_of

from nanocloud.client.api import core_path
from nanocloud.client.endpoint import Endpoint

ROUNDS = 20
_STATUS = 3
_CLOSE = 8


def main() -> None:
    if os.geteuid() != 0:
        sys.exit("the measure exec needs root: it makes containers")
    with fresh_disk() as disk, contenders(disk) as (ours, theirs, floor, _):
        for one in (ours, *theirs, floor):
            one.begin(1)
            one.bell.answer()
            one.begun(1)
        with ours.node.entered():
            endpoint = ours.node.api().endpoint
        peers = {one.peer.name: one.peer for one in theirs}
        samples = interleave(
            {
                "api": lambda: _by_api(ours, endpoint),
                "command": lambda: _by_command([str(NANOCLOUD), "exec", "c1", "--", "true"], ours),
                "docker's API": lambda: milliseconds_of(lambda: _docker_api(peers["docker"])),
                **{f"{name} exec": lambda peer=peer: _by_peer(peer) for name, peer in peers.items()},
                "crun exec": lambda: milliseconds_of(lambda: floor.hand.ask("exec", 1)),
            },
            ROUNDS,
            warm_up=2,
        )
    floor = samples["crun exec"]
    by_command = {name: samples[name] for name in ("podman exec", "docker exec")}
    api = {"docker's API": samples["docker's API"]}
    report("exec.api", "ms", ours=samples["api"], peers=api, floor=floor, floor_name="crun exec")
    report("exec.command", "ms", ours=samples["command"], peers=by_command, floor=floor, floor_name="crun exec")


def _by_api(ours: Ours, endpoint: Endpoint) -> float:
    with ours.node.entered():
        return milliseconds_of(lambda: _exec(endpoint))


def _exec(endpoint: Endpoint) -> None:
    """The least client there is: RFC 6455, a text of the Kubernetes API, and nothing to send."""
    parts = urlsplit(endpoint.server)
    path = f"{core_path('default', 'pods', 'c1-0', 'exec')}?command=true&stdout=true&stderr=true"
    with socket.create_connection((parts.hostname, parts.port)) as plain:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with _context(endpoint).wrap_socket(plain, server_hostname=parts.hostname) as stream:
            stream.sendall(
                f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                "Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n".encode()
            )
            with stream.makefile("rb") as replies:
                status = replies.readline()
                if b" 101 " not in status:
                    raise RuntimeError(f"exec was answered {status!r}")
                while replies.readline() != b"\r\n":
                    pass
                while (message := _message(replies))[:1] != bytes([_STATUS]):
                    pass
    if json.loads(message[1:])["status"] != "Success":
        raise RuntimeError(f"true ended with {message!r}")


_contexts: dict[int, ssl.SSLContext] = {}


def _context(endpoint: Endpoint) -> ssl.SSLContext:
    """Made once: reading certificates is no part of a request. Sessions are not resumed."""
    return _contexts.setdefault(id(endpoint), endpoint.ssl_context())


def _message(replies: Any) -> bytes:
    first, size = replies.read(2)
    if first & 15 == _CLOSE:
        raise RuntimeError("exec was closed without a status")
    if size == 126:
        size = int.from_bytes(replies.read(2), "big")
    return bytes(replies.read(size))


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def _docker_api(peer: Peer) -> None:
    path = urlsplit(peer.words[peer.words.index("--host") + 1]).path
    connection = _UnixConnection(path)

    def ask(method: str, where: str, body: Any = None) -> bytes:
        headers = {"Content-Type": "application/json"}
        connection.request(method, where, body=None if body is None else json.dumps(body), headers=headers)
        return connection.getresponse().read()

    made = json.loads(ask("POST", "/containers/c1/exec", {"Cmd": ["true"], "AttachStdout": True, "AttachStderr": True}))
    ask("POST", f"/exec/{made['Id']}/start", {"Detach": False, "Tty": False})  # until its output ends
    told = json.loads(ask("GET", f"/exec/{made['Id']}/json"))
    connection.close()
    if told["ExitCode"] != 0:
        raise RuntimeError(f"true ended with {told}")


def _by_peer(peer: Peer) -> float:
    return milliseconds_of(lambda: peer.run("exec", "c1", "true"))


def _by_command(command: list[str], ours: Ours) -> float:
    def run() -> None:
        subprocess.run(command, env=default_environment(ours.node), stdin=subprocess.DEVNULL, check=True)

    with ours.node.entered():
        return milliseconds_of(run)


if __name__ == "__main__":
    main()
