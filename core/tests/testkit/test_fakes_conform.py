"""The fakes pass the suites that the real providers pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nanocloud.testkit import FakeExec, FakeNetwork, FakeProgram, FakeRuntime, FakeVolume
from nanocloud.testkit.suites import runtime as words
from nanocloud.testkit.suites.network import NetworkProviderSuite
from nanocloud.testkit.suites.runtime import RuntimeProviderSuite
from nanocloud.testkit.suites.volume import VolumeProviderSuite

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trio.testing import MockClock

    from nanocloud.providers.runtime import ContainerSpec

PROGRAMS = {
    words.RUN_ON: FakeProgram(stop_exit_code=None),
    words.EXIT_7: FakeProgram(exit_after_seconds=0, exit_code=7),
    words.SAY: FakeProgram(output=(("stdout", "one"), ("stderr", "two")), exit_after_seconds=0),
    words.MISSING: FakeProgram(start_error=127),
}


def program(spec: ContainerSpec) -> FakeProgram:
    return PROGRAMS[spec.argv]


async def run_command(call: FakeExec) -> int:
    """The commands of the suite, as a container with a shell would run them."""
    assert call.stderr is not None
    match call.spec.argv:
        case words.SAY:
            await call.stdout.send_all(b"one\n")
            await call.stderr.send_all(b"two\n")
        case words.EXIT_7:
            return 7
        case words.MISSING:
            await call.stderr.send_all(b"not found\n")
            return 127
        case words.CAT_SECRET:
            await call.stdout.send_all(call.spec.secrets[0])
        case words.CAT:
            assert call.stdin is not None
            async for piece in call.stdin:
                await call.stdout.send_all(piece)
        case words.RUN_ON:
            await call.container.ended.wait()
    return 0


class TestFakeRuntime(RuntimeProviderSuite):
    @pytest.fixture
    def make_provider(self, autojump_clock: MockClock) -> Callable[[], FakeRuntime]:
        runtime = FakeRuntime(program=program, exec_handler=run_command)
        return lambda: runtime

    @pytest.fixture
    def layers(self, tmp_path: Path) -> tuple[Path, ...]:
        return (tmp_path,)


class TestFakeNetwork(NetworkProviderSuite):
    @pytest.fixture
    def make_provider(self) -> Callable[[], FakeNetwork]:
        network = FakeNetwork()
        return lambda: network


class TestFakeVolume(VolumeProviderSuite):
    @pytest.fixture
    def make_provider(self, tmp_path: Path) -> Callable[[], FakeVolume]:
        volume = FakeVolume(tmp_path / "volumes")
        return lambda: volume

    # A folder has no size: nothing stops who writes past the limit, as FakeVolume says.
    test_limit_holds_for_what_is_written = None  # type: ignore[assignment]
