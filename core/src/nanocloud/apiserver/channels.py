"""Exec over a WebSocket: one process, its streams as channels.

Binary messages, the first byte is the channel: 0 standard input, 1 output, 2 error, 3 how it ended (one Status as
JSON), 4 size of the terminal (``{"Width": 80, "Height": 24}``). Protocol v5 adds 255: the next byte names a channel
that the client closes. Source: k8s.io/apimachinery, util/remotecommand; kubelet, remotecommand/websocket.go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import orjson
import trio
from starlette.websockets import WebSocket

from nanocloud.apiserver.negotiation import flag
from nanocloud.apiserver.pods import MAX_ARGUMENTS, access_of
from nanocloud.apiserver.status import error_response
from nanocloud.concurrency import unwrapped
from nanocloud.errors import BadRequestError, NanocloudError
from nanocloud.providers.runtime import ExecSpec

if TYPE_CHECKING:
    from nanocloud.apiserver.context import ApiContext
    from nanocloud.apiserver.paths import Target
    from nanocloud.models.meta import Object
    from nanocloud.providers.runtime import ExecSession

V5, V4 = "v5.channel.k8s.io", "v4.channel.k8s.io"
_STDIN, _STDOUT, _STDERR, _STATUS, _RESIZE, _CLOSE = 0, 1, 2, 3, 4, 255
_PIECE_BYTES = 32 * 1024
_STDIN_PIECES = 64
_DRAIN_SECONDS = 2.0
"""After the process ended, for what its children hold open; they do not keep the session alive."""


@attrs.frozen
class ExecRequest:
    """The query of an exec request."""

    container: str | None
    spec: ExecSpec
    stdout: bool
    stderr: bool
    as_binding: bool = False

    @classmethod
    def of(cls, socket: WebSocket) -> ExecRequest:
        """Raises BadRequestError: names the parameter."""
        query = socket.query_params
        argv = query.getlist("command")
        if not argv or not argv[0]:
            raise BadRequestError("you must specify at least 1 command for the container")
        if len(argv) > MAX_ARGUMENTS or any("\0" in word for word in argv):
            raise BadRequestError(f"command must have at most {MAX_ARGUMENTS} words without NUL")
        terminal = flag(query, "tty")
        stdout, stderr, stdin = flag(query, "stdout"), flag(query, "stderr"), flag(query, "stdin")
        if not (stdin or stdout or stderr):
            raise BadRequestError("you must specify at least one of stdin, stdout, stderr")
        spec = ExecSpec(argv=tuple(argv), stdin=stdin, terminal=terminal)
        as_binding = flag(query, "asBinding")
        return cls(query.get("container") or None, spec, stdout, stderr and not terminal, as_binding)


async def serve_exec(context: ApiContext, socket: WebSocket, target: Target) -> None:
    """Answer one exec request; failures before the process runs are answered as HTTP."""
    offered = socket.scope.get("subprotocols") or []
    chosen = next((protocol for protocol in (V5, V4) if protocol in offered), None)
    try:
        request = ExecRequest.of(socket)
        if chosen is None:
            raise BadRequestError(f"no WebSocket subprotocol in common: offered {offered}, served {V5}, {V4}")
        pod, container, as_binding = target.name or "", request.container, request.as_binding
        running = access_of(context).exec(target.where, pod, container, request.spec, as_binding=as_binding)
        with unwrapped():
            async with running as session:
                await socket.accept(subprotocol=chosen)
                await _Exchange(socket, session, request, is_v5=chosen == V5).run()
    except NanocloudError as exc:
        if socket.application_state.name == "CONNECTING":
            await socket.send_denial_response(error_response(exc, kind=target.kind, name=target.name or ""))
        else:
            await _finish(socket, _failure(str(exc)))


class _Exchange:
    """Moves bytes between one socket and one process until the process ends or the client leaves."""

    def __init__(self, socket: WebSocket, session: ExecSession, request: ExecRequest, *, is_v5: bool) -> None:
        self._socket, self._session, self._request, self._is_v5 = socket, session, request, is_v5
        self._sending = trio.Lock()
        self._input, self._input_out = trio.open_memory_channel[bytes](_STDIN_PIECES)

    async def run(self) -> None:
        # A real server opens with an empty piece of output, and some clients wait for it.
        await self._send(_STDOUT, b"")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._receive, nursery.cancel_scope)
            nursery.start_soon(self._write_input)
            closing: trio.Event | None = self._socket.scope.get("state", {}).get("closing")
            if closing is not None:
                nursery.start_soon(_cancel_when, closing, nursery.cancel_scope)
            code = await self._run_to_end()
            await _finish(self._socket, exit_status(code))
            nursery.cancel_scope.cancel()

    async def _run_to_end(self) -> int:
        async with trio.open_nursery() as pumps:
            pumps.start_soon(self._pump, self._session.stdout, _STDOUT, self._request.stdout)
            if self._session.stderr is not None:
                pumps.start_soon(self._pump, self._session.stderr, _STDERR, self._request.stderr)
            code = await self._session.wait()
            pumps.cancel_scope.deadline = trio.current_time() + _DRAIN_SECONDS
        return code

    async def _pump(self, stream: trio.abc.ReceiveStream, channel: int, wanted: bool) -> None:
        """``wanted`` false still reads: a process must not stop because nobody looks."""
        try:
            while piece := await stream.receive_some(_PIECE_BYTES):
                if wanted:
                    await self._send(channel, piece)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # how a terminal says that its last process went

    async def _send(self, channel: int, data: bytes | bytearray) -> None:
        async with self._sending:
            await self._socket.send_bytes(bytes((channel,)) + data)

    async def _receive(self, scope: trio.CancelScope) -> None:
        async with self._input:
            while True:
                message = await self._socket.receive()
                if message["type"] == "websocket.disconnect":
                    scope.cancel()
                    return
                data = message.get("bytes")
                if data:
                    await self._take(data[0], data[1:])

    async def _take(self, channel: int, data: bytes) -> None:
        if channel == _STDIN:
            try:
                await self._input.send(data)
            except (trio.ClosedResourceError, trio.BrokenResourceError):
                pass  # sent after the end of the input, or to a process that closed it
        elif channel == _RESIZE and (size := _size(data)) is not None:
            await self._session.resize(rows=size[1], columns=size[0])
        elif channel == _CLOSE and self._is_v5 and data[:1] == b"\x00":
            self._input.close()

    async def _write_input(self) -> None:
        stdin = self._session.stdin
        async with self._input_out:
            async for piece in self._input_out:
                if stdin is None or not piece:
                    continue
                try:
                    await stdin.send_all(piece)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return
        if stdin is not None:
            await stdin.aclose()


async def _cancel_when(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


def _size(data: bytes) -> tuple[int, int] | None:
    """Columns and rows; None for what cannot be a terminal's size."""
    try:
        size: Any = orjson.loads(data)
        columns, rows = size["Width"], size["Height"]
    except (ValueError, KeyError, TypeError):
        return None
    if type(columns) is int and type(rows) is int and 0 < columns < 65536 and 0 < rows < 65536:
        return columns, rows
    return None


async def _finish(socket: WebSocket, status: Object) -> None:
    await socket.send_bytes(bytes((_STATUS,)) + orjson.dumps(status))
    await socket.close(1000)


def exit_status(code: int) -> Object:
    """How a process ended, as clients read it."""
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def _failure(message: str) -> Object:
    return {"metadata": {}, "status": "Failure", "message": message, "reason": "InternalError", "code": 500}
