"""The socket on which crun hands over a terminal."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from nanocloud_runtime_crun.console import Console


@pytest.fixture
def many_open_files() -> Iterator[None]:
    """So many that the next descriptor is above 1,023."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (2048, before[1]))
    with ExitStack() as stack:
        for _ in range(1024):
            stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("many_open_files")
def test_whether_crun_called_is_seen_on_a_server_with_many_open_files(tmp_path: Path) -> None:
    with Console(tmp_path / "console") as console, socket.socket(socket.AF_UNIX) as crun:
        assert not console.was_called
        crun.connect(str(console.path))
        assert console.was_called
