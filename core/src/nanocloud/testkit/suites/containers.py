"""Containers for the runtime suite: what they run, and how a test starts and reads them."""

from __future__ import annotations

import os
import re
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

from nanocloud.providers.runtime import (
    ContainerId,
    ContainerSpec,
    ContainerStatus,
    RuntimeProvider,
)
from nanocloud.testkit.suites.base import ProviderSuite

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

WEB, JOB = ContainerId("web-0"), ContainerId("job-0")
LIMIT_SECONDS = 30
"""More than any single step takes; a runtime that hangs fails instead of hanging the run."""

RUN_ON = ("/bin/sleep", "1000000")
"""As a container's first process it ignores SIGTERM, for it has no handler."""
ON_SIGNAL = ("/bin/sh", "-c", "trap 'exit 3' TERM; trap 'exit 4' USR1; echo ready; while :; do sleep 0.05; done")
EXIT_7 = ("/bin/sh", "-c", "exit 7")
SAY = ("/bin/sh", "-c", "echo one; echo two >&2; exit 0")
SHOW = ("/bin/sh", "-c", 'echo "$A"; echo "$PWD"; cat /proc/sys/kernel/hostname')
WRITE = ("/bin/sh", "-c", "cat /written; echo new > /written; cat /written")
LATE = ("/bin/sh", "-c", "while [ ! -e /mounted/go ]; do sleep 0.05; done; echo late; exit 7")
"""Speaks and ends once the host has made a file in what is mounted."""
MISSING = ("/bin/no-such-program",)
CAT = ("/bin/cat",)
CAT_FILE = ("/bin/cat", "/etc/projected")
CAT_MOUNT = ("/bin/cat", "/mounted/data")
OVERWRITE = ("/bin/sh", "-c", "for f in /mounted/data /etc/projected; do (echo x > $f) 2>/dev/null || echo no; done")
CAT_SECRETS = ("/bin/cat", "/dev/fd/4", "/dev/fd/3")
STATUS = ("/bin/cat", "/proc/self/status")
SHOW_A = ("/bin/sh", "-c", 'echo "$A"')

FILTERED = "2"
"""SECCOMP_MODE_FILTER, as proc(5) shows it."""

_CRI_LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}(?:Z|[+-]\d\d:\d\d) (stdout|stderr) [FP] (.*)")


class ContainerSuite(ProviderSuite[RuntimeProvider]):
    """What the parts of RuntimeProviderSuite share."""

    contract = "runtime"

    @pytest.fixture
    def layers(self) -> tuple[Path, ...]:
        pytest.fail(
            f"{type(self).__name__} must define the fixture layers: an unpacked image with a shell", pytrace=False
        )

    @pytest.fixture
    def spec(self, layers: tuple[Path, ...], tmp_path: Path) -> Callable[..., ContainerSpec]:
        """Builds the spec of a container with the given argv."""

        def build(argv: tuple[str, ...] = RUN_ON, *, container: ContainerId = WEB, **fields: Any) -> ContainerSpec:
            return ContainerSpec(
                id=container,
                labels={"nanocloud.io/pod": "web-0"},
                layers=layers,
                argv=argv,
                log_path=tmp_path / "logs" / f"{container}.log",
                **fields,
            )

        return build

    @asynccontextmanager
    async def running(self, provider: RuntimeProvider, spec: ContainerSpec) -> AsyncIterator[ContainerStatus]:
        with trio.fail_after(LIMIT_SECONDS):
            await provider.create(spec)
            yield await provider.start(spec.id)
            await provider.remove(spec.id)

    async def output(self, provider: RuntimeProvider, spec: ContainerSpec) -> list[str]:
        """What a container says until it ends."""
        async with self.running(provider, spec):
            assert (await provider.wait(spec.id)).code == 0
            return [text for _, text in logged(spec.log_path)]

    def kill_behind_its_back(self, provider: RuntimeProvider, status: ContainerStatus) -> None:
        """End a container as the kernel or an administrator would."""
        assert status.pid is not None
        os.kill(status.pid, signal.SIGKILL)


def logged(file: Path) -> list[tuple[str, str]]:
    """Stream and text of the lines of a log, all of which are in the CRI format."""
    lines = [_CRI_LINE.fullmatch(line) for line in file.read_text().splitlines()]
    assert None not in lines
    return [(line[1], line[2]) for line in lines if line]


def fields_of(status: list[str]) -> dict[str, str]:
    """The first value of each line of ``/proc/<pid>/status``; see proc(5)."""
    pairs = [line.partition(":") for line in status]
    return {name: (values.split() or [""])[0] for name, _, values in pairs}
