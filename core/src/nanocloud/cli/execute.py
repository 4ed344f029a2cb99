"""``exec``: a process in a service's container, over a WebSocket as ``kubectl exec`` does it."""

from __future__ import annotations

import json
import os
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any
from urllib.parse import urlencode, urlsplit

import typer

from nanocloud.cli.logs import pod_of
from nanocloud.cli.options import Curl, Namespace, api
from nanocloud.client.api import CurlPrinted, UnreachableError, core_path
from nanocloud.errors import NanocloudError

_STDIN, _STDOUT, _STDERR, _STATUS, _RESIZE, _CLOSE = b"\x00", 1, 2, 3, b"\x04", b"\xff\x00"
_PROTOCOL = "v5.channel.k8s.io"
_PIECE = 32 * 1024


def execute(
    pod: Annotated[str, typer.Argument(help="A service, or a pod.", show_default=False)],
    command: Annotated[list[str], typer.Argument(help="After --: program and arguments.", show_default=False)],
    namespace: Namespace = "default",
    interactive: Annotated[bool, typer.Option("--stdin", "-i", help="Pass standard input on.")] = False,
    terminal: Annotated[bool, typer.Option("--tty", "-t", help="Give the process a terminal.")] = False,
    container: Annotated[str | None, typer.Option("--container", "-c", help="In this container.")] = None,
    as_binding: Annotated[
        bool, typer.Option("--as-binding", help="As a binding command: its user, environment and rights.")
    ] = False,
    curl: Curl = False,
) -> int:
    """Run a command in a service's container; its exit status is ours."""
    import trio

    from nanocloud.concurrency import unwrapped

    query = [("command", word) for word in command] + [("stdout", "true")]
    if terminal and not sys.stdin.isatty():
        typer.echo("standard input is no terminal; going on without --tty", err=True)
        terminal = False
    query += [("stdin", "true")] if interactive else []
    query += [("tty", "true")] if terminal else [("stderr", "true")]
    query += [("container", container)] if container else []
    query += [("asBinding", "true")] if as_binding else []
    server = api(curl=curl)
    path = f"{core_path(namespace, 'pods', pod_of(pod), 'exec')}?{urlencode(query)}"
    if curl:
        typer.echo(
            f"exec needs a WebSocket ({_PROTOCOL}); with kubectl: "
            f"kubectl exec -n {namespace} {pod_of(pod)} -- {' '.join(command)}"
        )
        raise CurlPrinted
    with unwrapped(), _raw_terminal(terminal):
        return trio.run(_session, server.endpoint, path, interactive, terminal)


async def _session(endpoint: Any, path: str, interactive: bool, terminal: bool) -> int:
    import trio
    import trio_websocket

    parts = urlsplit(endpoint.server)
    headers = [(b"Authorization", f"Bearer {endpoint.token}".encode())] if endpoint.token else []
    try:
        async with trio_websocket.open_websocket(
            parts.hostname,
            parts.port or 443,
            path,
            use_ssl=endpoint.ssl_context(),
            subprotocols=[_PROTOCOL],
            extra_headers=headers,
            max_message_size=64 * 1024 * 1024,
        ) as socket:
            async with trio.open_nursery() as nursery:
                if interactive:
                    nursery.start_soon(_send_input, socket)
                if terminal:
                    nursery.start_soon(_send_sizes, socket)
                code = await _receive(socket)
                nursery.cancel_scope.cancel()
            return code
    except trio_websocket.ConnectionRejected as exc:
        raise NanocloudError(_reason(exc.body) or f"the server refused with {exc.status_code}") from exc
    except (OSError, trio_websocket.HandshakeError) as exc:
        raise UnreachableError(f"{endpoint.server} does not answer: {exc}") from exc


def _reason(body: bytes | None) -> str:
    try:
        return str(json.loads(body or b"{}").get("message", ""))
    except ValueError:
        return ""


async def _receive(socket: Any) -> int:
    """Write what comes; the status message ends it."""
    import trio_websocket

    code = 1
    try:
        while True:
            message = await socket.get_message()
            channel, data = message[0], message[1:]
            if channel in (_STDOUT, _STDERR):
                stream = sys.stdout.buffer if channel == _STDOUT else sys.stderr.buffer
                stream.write(data)
                stream.flush()
            elif channel == _STATUS:
                code = _exit_code(json.loads(data))
    except trio_websocket.ConnectionClosed:
        return code


def _exit_code(status: dict[str, Any]) -> int:
    if status.get("status") == "Success":
        return 0
    for cause in (status.get("details") or {}).get("causes") or []:
        if cause.get("reason") == "ExitCode":
            return int(cause["message"])
    raise NanocloudError(str(status.get("message") or "the command failed"))


async def _send_input(socket: Any) -> None:
    import trio

    async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as stdin:
        while piece := await stdin.receive_some(_PIECE):
            await socket.send_message(_STDIN + piece)
    await socket.send_message(_CLOSE)


async def _send_sizes(socket: Any) -> None:
    import trio

    with trio.open_signal_receiver(signal.SIGWINCH) as signals:
        while True:
            size = os.get_terminal_size(sys.stdin.fileno())
            message = json.dumps({"Width": size.columns, "Height": size.lines}).encode()
            await socket.send_message(_RESIZE + message)
            await anext(aiter(signals))


@contextmanager
def _raw_terminal(wanted: bool) -> Iterator[None]:
    """Keys go to the process as they are pressed; the terminal is given back as it was."""
    if not wanted:
        yield
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
