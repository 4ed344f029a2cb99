"""How crun hands over the terminal of an exec session."""

from __future__ import annotations

import array
import os
import select
import socket
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from pathlib import Path


class Console:
    """The socket on which crun hands over the master of a new pseudo terminal (SCM_RIGHTS)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._called = False

    def __enter__(self) -> Console:
        # A socket's name is at most 107 bytes and the folder's may be longer: name it by descriptor.
        folder = os.open(self.path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._listener.bind(f"/proc/self/fd/{folder}/{self.path.name}")
        finally:
            os.close(folder)
        self._listener.listen(1)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    @property
    def was_called(self) -> bool:
        """Whether crun has connected, be it that nobody has looked yet."""
        poll = select.poll()  # select itself knows no descriptor above 1,023
        poll.register(self._listener, select.POLLIN)
        return self._called or bool(poll.poll(0))

    async def receive(self) -> int | None:
        """Wait for the master; None where crun hangs up without sending it."""
        connection, _ = await trio.socket.from_stdlib_socket(self._listener).accept()
        self._called = True
        with connection:
            _, control, _, _ = await connection.recvmsg(64, socket.CMSG_SPACE(array.array("i").itemsize))
        for level, kind, data in control:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                master = array.array("i", data)[0]
                os.set_inheritable(master, False)
                return master
        return None
