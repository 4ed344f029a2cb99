"""curl and Python's http.client, unmodified, against the server's HTTP."""

from __future__ import annotations

import http.client
import shutil
import ssl
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trustme

from nanocloud.apiserver.server import serve

CURL = shutil.which("curl")
pytestmark = pytest.mark.skipif(CURL is None, reason="curl is not installed")


async def digest(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the method, how much body there was, and its last bytes."""
    size, last = 0, b""
    while True:
        message = await receive()
        size, last = size + len(message["body"]), (last + message["body"])[-4:]
        if not message["more_body"]:
            break
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-path", scope["raw_path"])]})
    text = f"{scope['method']} {size} ".encode() + last
    await send({"type": "http.response.body", "body": text, "more_body": scope["path"] == "/stream"})
    if scope["path"] == "/stream":
        await send({"type": "http.response.body", "body": b" end"})


@attrs.define
class Server:
    folder: Path
    port: int

    async def curl(self, *arguments: str, stdin: bytes = b"") -> str:
        command = [CURL or "curl", "-sS", "--max-time", "20", "--cacert", str(self.folder / "ca.pem"), *arguments]
        done = await trio.run_process(command, stdin=stdin, capture_stdout=True)
        text: str = done.stdout.decode()
        return text

    def url(self, path: str = "/") -> str:
        return f"https://127.0.0.1:{self.port}{path}"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    ca = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    (tmp_path / "large").write_bytes(bytes(3_000_000) + b"last")
    async with trio.open_nursery() as nursery:
        [(_, port)] = await nursery.start(partial(serve, digest, listen="127.0.0.1:0", ssl_context=context))
        yield Server(tmp_path, port)
        nursery.cancel_scope.cancel()


async def test_bodies_of_every_kind_arrive_whole(server: Server) -> None:
    large = str(server.folder / "large")
    assert await server.curl("-T", large, server.url()) == "PUT 3000004 last"  # asks with Expect: 100-continue
    assert await server.curl("-T", large, "-H", "Expect: 100-continue", server.url()) == "PUT 3000004 last"
    assert await server.curl("-T", "-", server.url(), stdin=b"piped") == "PUT 5 iped"  # chunked
    assert await server.curl("-d", "form", server.url()) == "POST 4 form"
    assert await server.curl("-d", "", server.url()) == "POST 0 "


async def test_one_connection_serves_many_requests(server: Server) -> None:
    urls = [server.url(f"/{number}") for number in range(5)]
    shown = await server.curl("-w", " %{num_connects}\n", *urls)
    assert shown.split("\n")[:-1] == ["GET 0  1", *["GET 0  0"] * 4]


async def test_other_versions_of_http_are_met_halfway(server: Server) -> None:
    assert await server.curl("--http2", "-w", " %{http_version}", server.url()) == "GET 0  1.1"
    assert await server.curl("--http1.0", "-w", " %{http_version}", server.url("/stream")) == "GET 0  end 1.1"
    assert await server.curl("--head", "-o", "/dev/null", "-w", "%{http_code}", server.url()) == "200"


async def test_an_absolute_target_is_served(server: Server) -> None:
    assert "x-path: /a%20b" in await server.curl("-i", "--request-target", server.url("/a%20b?c"), server.url())


async def test_the_standard_library_reads_streams_and_keeps_its_connection(server: Server) -> None:
    def talk() -> list[bytes]:
        context = ssl.create_default_context(cafile=str(server.folder / "ca.pem"))
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=context, timeout=20)
        found = []
        for method, path, body in (("GET", "/stream", None), ("POST", "/", b"x" * 100_000), ("PUT", "/", iter([b"1"]))):
            connection.request(method, path, body, encode_chunked=not isinstance(body, bytes | None))
            found.append(connection.getresponse().read())
        connection.close()
        return found

    assert await trio.to_thread.run_sync(talk) == [b"GET 0  end", b"POST 100000 xxxx", b"PUT 1 1"]
