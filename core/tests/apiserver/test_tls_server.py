"""The TLS server: certificates, alerts, exec over WebSocket, and how it stops."""

from __future__ import annotations

import os
import resource
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Any
from urllib.parse import urlencode

import attrs
import httpx2
import orjson
import pytest
import trio
import trustme
from cryptography import x509
from cryptography.x509.oid import NameOID
from structlog.testing import capture_logs
from trio_websocket import WebSocketConnection, open_websocket_url

from nanocloud.apiserver import server as server_module
from nanocloud.apiserver.app import build_app
from nanocloud.apiserver.auth import MASTERS, User
from nanocloud.apiserver.context import ApiContext
from nanocloud.apiserver.server import parse_listen, serve
from nanocloud.errors import ConfigError, NotFoundError, ProviderError
from nanocloud.objects import ObjectStore
from nanocloud.providers.runtime import ExecSession, ExecSpec

PODS = "/api/v1/namespaces/default/pods"


class CertificateUsers:
    async def authenticate(self, scope: Mapping[str, Any]) -> User | None:
        der = scope["state"]["tls"]["der"]
        if der is None:
            return None
        subject = x509.load_der_x509_certificate(der).subject
        return User(name=str(subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value), groups=frozenset({MASTERS}))


class HostSession(ExecSession):
    def __init__(self, process: trio.Process) -> None:
        assert process.stdout is not None
        self.process = process
        self.stdin, self.stdout, self.stderr = process.stdin, process.stdout, process.stderr
        self.sizes: list[tuple[int, int]] = []
        self.resized = trio.Event()

    async def resize(self, *, rows: int, columns: int) -> None:
        if rows == 666:
            raise ProviderError("the terminal is gone")
        self.sizes.append((rows, columns))
        self.resized.set()

    async def wait(self) -> int:
        return await self.process.wait()


class HostPods:
    """Every pod but ``none`` is the host."""

    def __init__(self) -> None:
        self.sessions: list[HostSession] = []
        self.over = trio.Event()

    def read_logs(self, *_: Any, **__: Any) -> Any:
        raise NotFoundError("no logs here")

    @asynccontextmanager
    async def exec(
        self, namespace: str, pod: str, container: str | None, spec: ExecSpec, *, as_binding: bool = False
    ) -> AsyncIterator[ExecSession]:
        self.as_binding = as_binding
        if pod == "none":
            raise NotFoundError('pods "none" not found')
        stdin = subprocess.PIPE if spec.stdin else subprocess.DEVNULL
        pipe = subprocess.PIPE
        process = await trio.lowlevel.open_process(list(spec.argv), stdin=stdin, stdout=pipe, stderr=pipe)
        self.sessions.append(HostSession(process))
        try:
            yield self.sessions[-1]
        finally:
            if process.returncode is None:
                process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
            self.over.set()


@attrs.define
class Server:
    ca: trustme.CA
    context: ssl.SSLContext
    port: int
    pods: HostPods
    scope: trio.CancelScope

    def client_context(self, issuer: trustme.CA | None) -> ssl.SSLContext:
        context = ssl.create_default_context()
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        self.ca.configure_trust(context)
        if issuer is not None:
            issuer.issue_cert(common_name="tester").configure_cert(context)
        return context

    def client(self, issuer: trustme.CA | None) -> httpx2.AsyncClient:
        url = f"https://127.0.0.1:{self.port}"
        return httpx2.AsyncClient(verify=self.client_context(issuer), base_url=url, trust_env=False)

    @asynccontextmanager
    async def exec(
        self, *command: str, protocols: tuple[str, ...] = ("v5.channel.k8s.io",), pod: str = "web-0", **query: str
    ) -> AsyncIterator[WebSocketConnection]:
        parameters = [("command", word) for word in command] + list(({"stdout": "1", "stderr": "1"} | query).items())
        url = f"wss://127.0.0.1:{self.port}{PODS}/{pod}/exec?{urlencode(parameters)}"
        context = self.client_context(self.ca)
        with trio.fail_after(10):
            async with open_websocket_url(url, ssl_context=context, subprotocols=protocols) as socket:
                yield socket


@pytest.fixture
async def server(store: ObjectStore) -> AsyncIterator[Server]:
    ca, pods = trustme.CA(), HostPods()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # on by default since Python 3.13, and more than trustme fulfils
    context.verify_mode = ssl.CERT_OPTIONAL
    ca.issue_cert("127.0.0.1").configure_cert(context)
    ca.configure_trust(context)
    app = build_app(ApiContext(store=store, authenticator=CertificateUsers(), pods=pods))

    async def run(*, task_status: trio.TaskStatus[tuple[int, trio.CancelScope]]) -> None:
        async with trio.open_nursery() as inner:
            [(_, port)] = await inner.start(partial(serve, app, listen="127.0.0.1:0", ssl_context=context))
            task_status.started((port, inner.cancel_scope))

    async with trio.open_nursery() as nursery:
        port, scope = await nursery.start(run)
        yield Server(ca, context, port, pods, scope)
        scope.cancel()


async def test_a_client_certificate_says_who_asks(server: Server) -> None:
    async with server.client(server.ca) as client:
        assert (await client.get("/api/v1/namespaces")).status_code == 200
    async with server.client(None) as client:
        answer = await client.get("/api/v1/namespaces")
        assert (answer.status_code, answer.json()["reason"]) == (401, "Unauthorized")
        assert (await client.get("/version")).json()["minor"] == "33"


async def test_a_failed_handshake_tells_the_client_why(server: Server) -> None:
    async def reason(issuer: trustme.CA | None) -> str:
        async with server.client(issuer) as client:
            with pytest.raises(httpx2.TransportError) as caught:
                await client.get("/version")
        chain: list[str] = []
        error: BaseException | None = caught.value
        while error is not None:
            chain.append(repr(error))
            error = error.__cause__ or error.__context__
        return " ".join(chain).lower()

    assert "unknown ca" in await reason(trustme.CA())
    server.context.verify_mode = ssl.CERT_REQUIRED
    assert "certificate required" in await reason(None)


async def test_rubbish_on_the_socket_hurts_nobody(server: Server) -> None:
    for rubbish in (b"", b"GET / HTTP/1.1\r\n\r\n", bytes(range(256))):
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        await stream.send_all(rubbish)
        await stream.aclose()
    async with server.client(server.ca) as client:
        assert (await client.get("/healthz")).text == "ok"


@pytest.fixture
def few_files() -> Iterator[int]:
    """For the time of a test this process may have 400 files open."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (400, before[1]))
    yield 400
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_strangers_leave_the_server_half_of_its_descriptors(few_files: int, server: Server) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (4 * few_files, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    async with AsyncExitStack() as stack:
        for _ in range(few_files):
            await stack.enter_async_context(await trio.open_tcp_stream("127.0.0.1", server.port))
        await trio.testing.wait_all_tasks_blocked(0.05)
        ours = [fd for fd in os.listdir("/proc/self/fd") if _local_port(int(fd)) == server.port]
    assert len(ours) == few_files // 2 + 1  # and the one that listens


async def test_those_who_only_hold_connections_keep_nobody_out(few_files: int, server: Server) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (4 * few_files, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(server.client(server.ca))
        watch = client.stream("GET", "/api/v1/namespaces", params={"watch": "true"})
        lines = (await stack.enter_async_context(watch)).aiter_lines()
        assert orjson.loads(await lines.__anext__())["type"] == "ADDED"
        strangers = [
            await stack.enter_async_context(await trio.open_tcp_stream("127.0.0.1", server.port))
            for _ in range(few_files)
        ]
        with trio.fail_after(5):
            assert await strangers[0].receive_some() == b""  # the first to come was the first to go
            assert (await client.get("/api/v1/namespaces")).status_code == 200
            created = {"metadata": {"name": "late"}}
            assert (await client.post("/api/v1/namespaces", json=created)).status_code == 201
            while orjson.loads(await lines.__anext__())["object"]["metadata"]["name"] != "late":
                pass
            server.scope.cancel()
            assert [line async for line in lines] == []


@pytest.fixture
def four_connections(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(server_module, "MAX_CONNECTIONS", 4)
    return 4


async def test_those_who_ask_and_take_no_answers_keep_nobody_out(four_connections: int, server: Server) -> None:
    async def ask_for_ever(stream: trio.SSLStream[trio.SocketStream]) -> None:
        with suppress(trio.BrokenResourceError):
            while True:
                await stream.send_all(b"GET /version HTTP/1.1\r\nHost: node\r\n\r\n" * 100)

    context = server.client_context(None)
    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        for _ in range(four_connections):
            plain = await trio.open_tcp_stream("127.0.0.1", server.port)
            stack.push_async_callback(plain.aclose)
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stream = trio.SSLStream(plain, context, server_hostname="127.0.0.1", https_compatible=True)
            await stream.do_handshake()
            nursery.start_soon(ask_for_ever, stream)
        await trio.testing.wait_all_tasks_blocked(0.2)
        async with server.client(server.ca) as client:
            assert (await client.get("/healthz")).text == "ok"
        nursery.cancel_scope.cancel()


def _local_port(descriptor: int) -> int | None:
    try:
        with socket.socket(fileno=os.dup(descriptor)) as known:
            return int(known.getsockname()[1]) if known.family == socket.AF_INET else None
    except OSError:  # no socket, or closed meanwhile
        return None


async def test_a_client_that_vanished_is_noticed_while_nothing_is_sent(server: Server) -> None:
    async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
        ends = [f"0100007F:{port:04X}" for port in (server.port, stream.socket.getsockname()[1])]
        table = await trio.Path("/proc/net/tcp").read_text()
        lines = [line.split() for line in table.splitlines()]
    [(kind, ticks)] = [line[5].split(":") for line in lines if line[1:3] == ends]
    assert (kind, int(ticks, 16) / os.sysconf("SC_CLK_TCK") <= 60) == ("02", True)  # proc(5): the timer of keepalive


async def test_a_client_that_leaves_in_its_body_is_no_failure_of_the_server(server: Server) -> None:
    begun = b"POST /api/v1/namespaces HTTP/1.1\r\nHost: node\r\nContent-Length: 100\r\n\r\n{"
    with capture_logs() as logs:
        async with await trio.open_ssl_over_tcp_stream(
            "127.0.0.1", server.port, ssl_context=server.client_context(server.ca), https_compatible=True
        ) as stream:
            await stream.send_all(begun)
            await stream.transport_stream.send_eof()
            answer = bytes(await stream.receive_some())
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert [entry["event"] for entry in logs] == ["request"]


async def test_a_stop_ends_watches_at_once(server: Server) -> None:
    with trio.fail_after(5):
        async with (
            server.client(server.ca) as client,
            client.stream("GET", "/api/v1/namespaces", params={"watch": "true"}) as answer,
        ):
            lines = answer.aiter_lines()
            assert orjson.loads(await lines.__anext__())["type"] == "ADDED"
            server.scope.cancel()
            rest = [orjson.loads(line)["type"] async for line in lines]
    assert rest == ["ADDED"]


async def test_a_stop_waits_for_nobody_who_has_asked_for_nothing_yet(server: Server) -> None:
    silent = await trio.open_tcp_stream("127.0.0.1", server.port)
    slow = await trio.open_ssl_over_tcp_stream(
        "127.0.0.1", server.port, ssl_context=server.client_context(None), https_compatible=True
    )
    await slow.send_all(b"GET /version HTT")
    await trio.testing.wait_all_tasks_blocked(0.05)
    server.scope.cancel()
    async with silent, slow:
        with trio.fail_after(5):
            assert (await silent.receive_some(), await slow.receive_some()) == (b"", b"")


async def read(socket: WebSocketConnection) -> tuple[dict[int, bytes], dict[str, Any]]:
    """Everything up to the end: what each channel said, and the status."""
    channels: dict[int, bytes] = {}
    while True:
        message = await socket.get_message()
        assert isinstance(message, bytes)
        channels[message[0]] = channels.get(message[0], b"") + message[1:]
        if message[0] == 3:
            return channels, orjson.loads(channels.pop(3))


@pytest.mark.parametrize("protocol", ["v5.channel.k8s.io", "v4.channel.k8s.io"])
async def test_exec_gives_streams_and_exit_status(server: Server, protocol: str) -> None:
    offer = ("v3.channel.k8s.io", protocol)
    async with server.exec("sh", "-c", "echo out; echo err >&2; exit 7", protocols=offer) as socket:
        assert socket.subprotocol == protocol
        channels, status = await read(socket)
    assert channels == {1: b"out\n", 2: b"err\n"}
    assert (status["status"], status["reason"]) == ("Failure", "NonZeroExitCode")
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "7"}]


async def test_closing_the_input_channel_ends_the_input(server: Server) -> None:
    async with server.exec("cat", stdin="1") as socket:
        await socket.send_message(b"\x00one ")
        await socket.send_message(b"\x00two")
        await socket.send_message(b"\xff\x00")
        await socket.send_message(b"\x00late")
        channels, status = await read(socket)
    assert (channels, status["status"]) == ({1: b"one two"}, "Success")


async def test_resize_reaches_the_process_and_nonsense_does_not(server: Server) -> None:
    async with server.exec("cat", stdin="1") as socket:
        for message in (b"", b"\x04{", b'\x04{"Width":-1,"Height":5}', b"\x09x", b'\x04{"Width":80,"Height":24}'):
            await socket.send_message(message)
        while not server.pods.sessions:
            await socket.get_message()
        await server.pods.sessions[0].resized.wait()
    assert server.pods.sessions[0].sizes == [(24, 80)]


async def test_a_failure_on_the_way_is_told_as_status(server: Server) -> None:
    async with server.exec("cat", stdin="1") as socket:
        await socket.send_message(b'\x04{"Width":80,"Height":666}')
        channels, status = await read(socket)
    assert (channels, status["message"]) == ({1: b""}, "the terminal is gone")


async def test_a_client_that_leaves_ends_its_process(server: Server) -> None:
    async with server.exec("sleep", "1000") as socket:
        await socket.get_message()
    with trio.fail_after(5):
        await server.pods.over.wait()
    assert server.pods.sessions[0].process.returncode == -9


async def test_exec_that_cannot_begin_is_answered_as_http(server: Server) -> None:
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }

    async def refusal(pod: str, query: str, protocol: str = "v5.channel.k8s.io") -> tuple[int, str]:
        async with server.client(server.ca) as client:
            url = f"{PODS}/{pod}/exec?{query}"
            answer = await client.get(url, headers=headers | {"Sec-WebSocket-Protocol": protocol})
        assert answer.json()["code"] == answer.status_code
        return answer.status_code, answer.json()["message"]

    assert await refusal("none", "command=true&stdout=1") == (404, 'pods "none" not found')
    assert "subprotocol" in (await refusal("web-0", "command=true&stdout=1", "v3.channel.k8s.io"))[1]
    assert "at least 1 command" in (await refusal("web-0", "stdout=1"))[1]
    assert (await refusal("web-0", "command=true&stdout=1&tty=maybe"))[0] == 400
    async with server.client(None) as client:
        answer = await client.get(f"{PODS}/web-0/exec?command=true&stdout=1", headers=headers)
    assert (answer.status_code, answer.json()["reason"]) == (401, "Unauthorized")


EVIL = {"Origin": "https://evil.example"}


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, 201),
        (EVIL, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "https://127.0.0.1:{port}"}, 201),
        (EVIL | {"Sec-Fetch-Site": "same-origin"}, 201),  # through a proxy, to the proxy's own page
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Origin": "https://127.0.0.1:{port}"}, 403),
        (EVIL | {"Authorization": "Bearer token"}, 201),
        (EVIL | {"Authorization": "Basic YTpi"}, 403),
    ],
)
async def test_a_page_of_another_site_cannot_use_the_certificate_of_a_browser(
    server: Server, headers: dict[str, str], code: int
) -> None:
    headers = {name: value.format(port=server.port) for name, value in headers.items()}
    created = orjson.dumps({"metadata": {"name": "made"}})  # without a type: a page may send that to anybody
    async with server.client(server.ca) as client:
        answer = await client.post("/api/v1/namespaces", content=created, headers=headers)
        assert (answer.status_code, (await client.get("/api/v1/namespaces", headers=EVIL)).status_code) == (code, 200)


async def test_a_page_of_another_site_gets_no_exec(server: Server) -> None:
    headers = EVIL | {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Protocol": "v4.channel.k8s.io",
    }
    async with server.client(server.ca) as client:
        answer = await client.get(f"{PODS}/web-0/exec?command=true&stdout=1", headers=headers)
    assert (answer.status_code, answer.json()["reason"], server.pods.sessions) == (403, "Forbidden", [])


@pytest.mark.parametrize("listen", ["", "6443", "host:", "host:x", "host:70000"])
def test_a_bad_address_is_named(listen: str) -> None:
    with pytest.raises(ConfigError, match="must be host:port"):
        parse_listen(listen)


def test_addresses() -> None:
    assert parse_listen("[::1]:6443") == ("::1", 6443)
    assert parse_listen("127.0.0.1:0") == ("127.0.0.1", 0)


async def test_a_process_can_be_asked_for_as_a_binding_command_runs(server: Server) -> None:
    for query, wanted in (({}, False), ({"asBinding": "true"}, True), ({"asBinding": "false"}, False)):
        async with server.exec("true", **query) as socket:
            await socket.get_message()  # how it ended
        assert server.pods.as_binding is wanted
