"""How a container says that it runs: it connects to its gateway, and the connection ends when its process does.

The time until the call comes is the time until the image's program runs and can reach its network; the time until the
connection ends is the time until its process has ended. Every contender has the same gateway, each in a network
namespace of its own.
"""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from node import Layout

GATEWAY, NETWORK = "10.88.0.1", "10.88.0.0/16"
IMAGE = "bench"
_PORT = 5555
_LIMIT_SECONDS = 120.0
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

# Ends at once when it is asked to: PID 1 has no default for SIGTERM.
SCRIPT = f"""#!/bin/sh
trap 'exit 0' TERM
sleep 1000000 | nc {GATEWAY} {_PORT} &
while :; do wait; done
"""


def add_image(layout: Layout) -> None:
    """The smallest image that rings; ``true`` is in it for the measures of exec."""
    labels = {"io.nanocloud.options": {}}
    layout.add(IMAGE, command=["/run.sh"], files={"/run.sh": SCRIPT}, labels=labels, stop_signal="SIGTERM")


class Doorbell:
    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening

    def answer(self) -> socket.socket:
        """Wait for the next container; the connection lasts as long as its process."""
        connection, _ = self._listening.accept()
        connection.settimeout(_LIMIT_SECONDS)
        return connection


def wait_for_end(connection: socket.socket) -> None:
    with connection:
        try:
            while connection.recv(64):
                pass
        except ConnectionResetError:
            pass


@contextmanager
def doorbell(network_namespace: Path) -> Iterator[Doorbell]:
    with inside(network_namespace):
        listening = socket.create_server(("", _PORT), backlog=256)
    listening.settimeout(_LIMIT_SECONDS)
    with listening:
        yield Doorbell(listening)


@contextmanager
def inside(network_namespace: Path) -> Iterator[None]:
    """The calling thread in another network namespace: what it opens belongs there."""
    with Path("/proc/thread-self/ns/net").open() as before, network_namespace.open() as wanted:
        _enter(wanted.fileno())
        try:
            yield
        finally:
            _enter(before.fileno())


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "setns")
