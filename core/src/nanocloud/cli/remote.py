"""A process in a container, with this command's standard streams: what ``exec`` does.

People and scripts run it often: nothing here imports typer or an event loop (see ``words``).
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import sys
import termios
import tty
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from nanocloud.client.endpoint import find_endpoint
from nanocloud.client.errors import CurlPrinted
from nanocloud.client.paths import core_path
from nanocloud.client.websocket import connect
from nanocloud.errors import NanocloudError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from nanocloud.client.websocket import WebSocket

_STDIN, _STDOUT, _STDERR, _STATUS, _RESIZE, _END_OF_STDIN = b"\x00", 1, 2, 3, b"\x04", b"\xff\x00"
_PROTOCOL = "v5.channel.k8s.io"
_PIECE = 32 * 1024


def execute(
    pod: str,
    command: Sequence[str],
    *,
    namespace: str = "default",
    interactive: bool = False,
    terminal: bool = False,
    container: str | None = None,
    as_binding: bool = False,
    curl: bool = False,
) -> int:
    """Run it; its exit status is returned."""
    if not command:
        raise UsageError("there is no program to run", hint="nanocloud exec SERVICE -- PROGRAM [ARGUMENT...]")
    name = pod_of(pod)
    if curl:
        shown = f"kubectl exec -n {namespace} {name} -- {' '.join(command)}"
        print(f"exec needs a WebSocket ({_PROTOCOL}); with kubectl: {shown}")
        raise CurlPrinted
    if terminal and not sys.stdin.isatty():
        print("standard input is no terminal; going on without --tty", file=sys.stderr)
        terminal = False
    query = [("command", word) for word in command] + [("stdout", "true")]
    query += [("stdin", "true")] if interactive else []
    query += [("tty", "true")] if terminal else [("stderr", "true")]
    query += [("container", container)] if container else []
    query += [("asBinding", "true")] if as_binding else []
    path = f"{core_path(namespace, 'pods', name, 'exec')}?{urlencode(query)}"
    with ExitStack() as stack:
        remote = stack.enter_context(closing(connect(find_endpoint(), path, protocol=_PROTOCOL)))
        resized = stack.enter_context(_sizes()) if terminal else None
        stack.enter_context(_raw_terminal(terminal))
        return _Session(remote, interactive=interactive, resized=resized).run()


def pod_of(service: str) -> str:
    """A service name serves for the name of its pod; ``mariadb-0`` is one already."""
    return service if service.endswith("-0") else f"{service}-0"


class _Session:
    """Carries everything both ways until the server has said how the process ended."""

    def __init__(self, remote: WebSocket, *, interactive: bool, resized: int | None) -> None:
        self._remote, self._resized = remote, resized
        self._stdin = sys.stdin.fileno() if interactive else None
        self._code: int | None = None

    def run(self) -> int:
        if self._resized is not None:
            self._send_size()
        self._take(self._remote.receive())
        while not self._remote.is_closed:
            with selectors.PollSelector() as selector:
                ready = self._wait(selector)
            if self._remote.fileno() in ready:
                self._take(self._remote.receive())
            if self._resized in ready and self._resized is not None:
                os.read(self._resized, _PIECE)
                self._send_size()
            if self._stdin in ready and self._stdin is not None:
                self._send_input(self._stdin)
        return 1 if self._code is None else self._code

    def _wait(self, selector: selectors.BaseSelector) -> set[int]:
        """Until something can be done; the descriptors with which."""
        wanted = selectors.EVENT_READ | (0 if self._remote.is_flushed else selectors.EVENT_WRITE)
        selector.register(self._remote.fileno(), wanted)
        # What the process does not read in time stays where it is.
        for descriptor in (self._resized, None if self._remote.is_full else self._stdin):
            if descriptor is not None:
                selector.register(descriptor, selectors.EVENT_READ)
        return {key.fd for key, _ in selector.select()}

    def _send_input(self, descriptor: int) -> None:
        if piece := os.read(descriptor, _PIECE):
            self._remote.send(_STDIN + piece)
        else:
            self._remote.send(_END_OF_STDIN)
            self._stdin = None

    def _send_size(self) -> None:
        size = os.get_terminal_size(sys.stdin.fileno())
        self._remote.send(_RESIZE + json.dumps({"Width": size.columns, "Height": size.lines}).encode())

    def _take(self, messages: list[bytes]) -> None:
        for message in messages:
            channel, data = message[0] if message else -1, message[1:]
            if channel in (_STDOUT, _STDERR):
                stream = sys.stdout.buffer if channel == _STDOUT else sys.stderr.buffer
                stream.write(data)
                stream.flush()
            elif channel == _STATUS:
                self._code = _exit_code(json.loads(data))


def _exit_code(status: dict[str, Any]) -> int:
    if status.get("status") == "Success":
        return 0
    for cause in (status.get("details") or {}).get("causes") or []:
        if cause.get("reason") == "ExitCode":
            return int(cause["message"])
    raise NanocloudError(str(status.get("message") or "the command failed"))


@contextmanager
def _sizes() -> Iterator[int]:
    """A descriptor that can be read when the terminal has another size."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    handler = signal.signal(signal.SIGWINCH, lambda *_: None)
    try:
        yield reading
    finally:
        signal.signal(signal.SIGWINCH, handler)
        signal.set_wakeup_fd(before)
        os.close(reading)
        os.close(writing)


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
