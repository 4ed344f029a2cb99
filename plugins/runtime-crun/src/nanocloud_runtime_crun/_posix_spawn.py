"""posix_spawn(3) without Python's lock.

The call returns once the child has reached its ``execve``, which on a busy machine is milliseconds later. Python's own
``os.posix_spawn`` holds the lock of the interpreter for so long, and with it everything else that the server does.
"""

from __future__ import annotations

import ctypes
import os
import signal
from contextlib import ExitStack
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_SETSIGDEF, _SETSIGMASK = 0x04, 0x08
# The C library's own structures: glibc's largest has 336 bytes, musl's are smaller. A set of signals has 128 in both.
_Structure = ctypes.c_uint64 * 64
_SignalSet = ctypes.c_uint64 * 16
_libc = ctypes.CDLL(None)


def posix_spawn(
    argv: Sequence[str],
    environment: Mapping[str, str],
    descriptors: Sequence[tuple[int, int]],
    default_signals: Iterable[signal.Signals],
) -> int:
    """Start ``argv[0]`` (a path); its process number.

    Args:
        descriptors: (ours, the child's), copied in this order.
        default_signals: ignored here, but not there. No signal is blocked there.

    Raises:
        OSError: of the program's path.
    """
    with ExitStack() as made:
        actions, attributes = _Structure(), _Structure()
        _check(_libc.posix_spawn_file_actions_init(actions), "posix_spawn_file_actions_init")
        made.callback(_libc.posix_spawn_file_actions_destroy, actions)
        _check(_libc.posix_spawnattr_init(attributes), "posix_spawnattr_init")
        made.callback(_libc.posix_spawnattr_destroy, attributes)
        for ours, theirs in descriptors:
            _check(_libc.posix_spawn_file_actions_adddup2(actions, ours, theirs), "posix_spawn_file_actions_adddup2")
        _check(_libc.posix_spawnattr_setflags(attributes, ctypes.c_short(_SETSIGDEF | _SETSIGMASK)), "setflags")
        _check(_libc.posix_spawnattr_setsigmask(attributes, _signals(())), "posix_spawnattr_setsigmask")
        _check(_libc.posix_spawnattr_setsigdefault(attributes, _signals(default_signals)), "setsigdefault")
        pid = ctypes.c_int()
        words, settings = _strings(argv), _strings([f"{name}={value}" for name, value in environment.items()])
        path = os.fsencode(argv[0])
        _check(_libc.posix_spawn(ctypes.byref(pid), path, actions, attributes, words, settings), argv[0])
        return pid.value


def _signals(numbers: Iterable[signal.Signals]) -> ctypes.Array[ctypes.c_uint64]:
    made = _SignalSet()
    _libc.sigemptyset(made)
    for number in numbers:
        _libc.sigaddset(made, int(number))
    return made


def _strings(texts: Sequence[str]) -> ctypes.Array[ctypes.c_char_p]:
    return (ctypes.c_char_p * (len(texts) + 1))(*map(os.fsencode, texts), None)


def _check(number: int, what: str) -> None:
    if number:
        raise OSError(number, os.strerror(number), what)
