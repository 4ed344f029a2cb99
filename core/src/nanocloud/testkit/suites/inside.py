"""A look from inside a network namespace: what a name resolves to, and who answers at a port.

The question is put by hand, in the few bytes of RFC 1035: a package under test may come without any DNS library.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import threading
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, TypeVar

import trio

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nanocloud.providers.network import IPAddress

T = TypeVar("T")

NOERROR, NXDOMAIN = 0, 3
LIMIT_SECONDS = 10.0
_CLONE_NEWNET = 0x40000000
_A, _AAAA, _IN = 1, 28, 1
_RECURSION_DESIRED = 0x0100


async def within(namespace: Path, work: Callable[[], T]) -> T:
    """Run blocking ``work`` in a thread of its own that has entered the network namespace bound at a path."""
    done: list[T] = []
    failed: list[BaseException] = []

    def enter_and_work() -> None:
        try:
            descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
            try:
                libc = ctypes.CDLL(None, use_errno=True)  # os.setns came with Python 3.12
                if libc.setns(descriptor, _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")
            finally:
                os.close(descriptor)
            done.append(work())
        except BaseException as exc:
            failed.append(exc)

    thread = threading.Thread(target=enter_and_work)
    thread.start()
    await trio.to_thread.run_sync(thread.join)
    if failed:
        raise failed[0]
    return done[0]


def ask(server: IPAddress, name: str) -> tuple[int, set[IPAddress]]:
    """Response code and addresses of a name, both families; the codes of both have to agree."""
    answers = [_ask(server, name, kind) for kind in (_A, _AAAA)]
    assert answers[0][0] == answers[1][0], answers
    return answers[0][0], answers[0][1] | answers[1][1]


def _ask(server: IPAddress, name: str, kind: int) -> tuple[int, set[IPAddress]]:
    question = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
    query = struct.pack(">6H", 7, _RECURSION_DESIRED, 1, 0, 0, 0) + question + struct.pack(">2H", kind, _IN)
    family = socket.AF_INET if server.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(LIMIT_SECONDS)
        sock.connect((str(server), 53))
        sock.send(query)
        reply = sock.recv(4096)
    _, flags, _, count, _, _ = struct.unpack(">6H", reply[:12])
    found: set[IPAddress] = set()
    at = len(query)  # the reply repeats the question
    for _ in range(count):
        at = _after_name(reply, at)
        answered, _, _, length = struct.unpack(">2HIH", reply[at : at + 10])
        data = reply[at + 10 : at + 10 + length]
        if answered == kind:
            found.add(IPv4Address(data) if kind == _A else IPv6Address(data))
        at += 10 + length
    return flags & 0xF, found


def _after_name(message: bytes, at: int) -> int:
    while length := message[at]:
        if length >= 0xC0:  # a pointer ends a name
            return at + 2
        at += 1 + length
    return at + 1
