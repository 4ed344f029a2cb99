"""A misbehaving server on real sockets: TLS of a local authority, connections that break in the middle."""

from __future__ import annotations

import json
import ssl
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trustme

from nanocloud.errors import ImageError
from nanocloud_dockyard.media import Descriptor
from nanocloud_dockyard.reference import RegistryReference
from nanocloud_dockyard.registry import Backoff, RegistrySource
from nanocloud_dockyard.settings import DockyardConfig, RegistrySettings
from nanocloud_dockyard.source import digest_of
from nanocloud_dockyard.transport import Transport

MANIFEST = json.dumps({"layers": [], "config": {}}).encode()
BLOB = bytes(range(256)) * 8192
DESCRIPTOR = Descriptor(media_type="x", digest=digest_of(BLOB), size_bytes=len(BLOB))


@asynccontextmanager
async def serve(answer, tls=None):
    """Hand each request (its head) to ``answer(head, stream)``; the connection closes after it."""

    async def handle(stream):
        head = b""
        try:
            while b"\r\n\r\n" not in head:
                chunk = await stream.receive_some()
                if not chunk:
                    return
                head += chunk
            await answer(head.decode(), stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
        finally:
            await trio.aclose_forcefully(stream)

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    served = trio.SSLListener(listener, tls, https_compatible=True) if tls else listener
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, handle, [served]))
        yield f"localhost:{port}"
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def source(host, **config):
    async with Transport(DockyardConfig(**config)) as transport:
        reference = RegistryReference(host=host, repository="a/b", tag="v1")
        yield RegistrySource(transport, reference, (), Backoff(attempts=3, first_seconds=0))


async def manifest(head, stream):
    await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(MANIFEST) + MANIFEST)


async def read(source):
    async with source.layer(DESCRIPTOR) as chunks:
        return b"".join([chunk async for chunk in chunks])


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def tls(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


async def test_a_local_authority_is_trusted_where_it_is_configured(authority, tls, tmp_path):
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    async with serve(manifest, tls) as host:
        registries = {host: RegistrySettings(ca_file=tmp_path / "ca.pem")}
        async with source(host, registries=registries) as asked:
            assert (await asked.document(None)).data == MANIFEST


async def test_an_unknown_authority_is_refused_at_once(tls):
    asked = 0

    async def answer(head, stream):
        nonlocal asked
        asked += 1

    async with serve(answer, tls) as host, source(host) as distrustful:
        with pytest.raises(ImageError, match="certificate is not trusted") as caught:
            await distrustful.document(None)
    assert asked == 0
    assert "ca_file" in caught.value.hint


async def test_a_connection_that_breaks_in_the_middle_is_resumed():
    ranges = []

    async def answer(head, stream):
        lines = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
        ranges.append(lines.get("range"))
        start = int(ranges[-1].removeprefix("bytes=").rstrip("-")) if ranges[-1] else 0
        status = b"206 Partial Content" if start else b"200 OK"
        span = b"Content-Range: bytes %d-%d/%d\r\n" % (start, len(BLOB) - 1, len(BLOB))
        length = b"Content-Length: %d\r\n\r\n" % (len(BLOB) - start)
        await stream.send_all(b"HTTP/1.1 " + status + b"\r\n" + span + length)
        await stream.send_all(BLOB[start : start + 700_000])
        await stream.send_eof()

    async with serve(answer) as host, source(host, plain_http=(host,)) as asked:
        with trio.fail_after(20):
            assert await read(asked) == BLOB
    assert ranges == [None, "bytes=700000-", "bytes=1400000-"]


@pytest.mark.parametrize(
    "noise", [b"", b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", b"HTTP/1.1 200 OK\r\nX" * 9999]
)
async def test_a_server_that_speaks_no_http_is_given_up(noise):
    async def answer(head, stream):
        await stream.send_all(noise)

    async with serve(answer) as host, source(host, plain_http=(host,)) as asked:
        with trio.fail_after(20), pytest.raises(ImageError, match="tried 3 times"):
            await asked.document(None)


async def test_leaving_early_closes_the_connection():
    closed = trio.Event()

    async def answer(head, stream):
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BLOB) + BLOB[:1000])
        assert await stream.receive_some() == b""
        closed.set()

    async with serve(answer) as host, source(host, plain_http=(host,)) as asked:
        with trio.fail_after(20):
            async with asked.layer(DESCRIPTOR) as chunks:
                async for _ in chunks:
                    break
            await closed.wait()
