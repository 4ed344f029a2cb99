"""What every binding provider must keep. The commands are played by FakeRuntime, in virtual time."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar

import attrs
import pytest
import trio

from nanocloud.errors import InvalidError
from nanocloud.providers.binding import BindingArgument, BindingCall, BindingOutcome, BindingProvider, BindingResult
from nanocloud.providers.runtime import ContainerId, ContainerSpec, ExecSpec
from nanocloud.testkit import FakeExec, FakeRuntime
from nanocloud.testkit.suites.base import ProviderSuite
from nanocloud.testkit.suites.cancelling import cancel_at_every_await

if TYPE_CHECKING:
    from pathlib import Path

TARGET = ContainerId("mariadb-0")
FOLDER = "/usr/lib/nanocloud/bindings"
SECRET = "hunter2-swordfish"
LIMIT_SECONDS = 900
LIMIT_CHARACTERS = 1024 * 1024

# Commands of the target's image.
SAY, FAIL, HANG, FLOOD, DRIP = "say", "fail", "hang", "flood", "drip"


@attrs.define(eq=False)
class Target:
    """The container of the selected service, and what ran in it."""

    runtime: FakeRuntime = attrs.field(factory=FakeRuntime)
    started: list[ExecSpec] = attrs.field(factory=list[ExecSpec])
    running: int = 0

    async def play(self, call: FakeExec) -> int:
        self.started.append(call.spec)
        self.running += 1
        try:
            return await self._play(call)
        finally:
            self.running -= 1

    async def _play(self, call: FakeExec) -> int:
        match call.spec.argv[0].rpartition("/")[2]:
            case "hang":
                await trio.sleep_forever()
            case "fail":
                return 4
            case "drip":
                for secret in call.spec.secrets:
                    for piece in (b"<", secret[: len(secret) // 2], secret[len(secret) // 2 :], b">\xff"):
                        await call.stdout.send_all(piece)
                        await trio.sleep(0.1)
            case "flood":
                for _ in range(20):
                    await call.stdout.send_all(b"x" * (LIMIT_CHARACTERS // 10))
            case _:
                await call.stdout.send_all(" ".join(call.spec.argv[1:]).encode())
                await (call.stderr or call.stdout).send_all(b"".join(call.spec.secrets))
        return 0


class BindingProviderSuite(ProviderSuite[BindingProvider]):
    contract = "binding"
    virtual_time = 0.01
    id: ClassVar[str] = "default/shop/one"

    @pytest.fixture
    async def target(self, tmp_path: Path) -> Target:
        target = Target()
        target.runtime.exec_handler = target.play
        await target.runtime.create(
            ContainerSpec(id=TARGET, layers=(tmp_path,), argv=("/sbin/init",), log_path=tmp_path / "logs" / "log")
        )
        await target.runtime.start(TARGET)
        return target

    def call(self, target: Target, command: str, *arguments: str | bytes, id: str = id) -> BindingCall:
        """Bytes are secret."""
        return BindingCall(
            id=id,
            command=command,
            arguments=tuple(
                BindingArgument(value=word.decode(), secret=True)
                if isinstance(word, bytes)
                else BindingArgument(value=word)
                for word in arguments
            ),
            container=TARGET,
            runtime=target.runtime,
            attempt=1,
        )

    async def run(self, provider: BindingProvider, call: BindingCall) -> BindingOutcome:
        with trio.fail_after(2 * LIMIT_SECONDS):
            return await provider.run(call)

    def runs(self, provider: BindingProvider, target: Target) -> list[str]:
        """The commands that were run, in order."""
        return [spec.argv[0].rpartition("/")[2] for spec in target.started]

    async def test_a_command_that_ends_well_is_completed(self, provider: BindingProvider, target: Target) -> None:
        """The command ended with 0."""
        outcome = await self.run(provider, self.call(target, SAY))
        assert (outcome.result, outcome.exit_code) == (BindingResult.COMPLETED, 0)

    async def test_a_command_runs_once(self, provider: BindingProvider, target: Target) -> None:
        """Run the command once and report."""
        for command in (SAY, FAIL):
            await self.run(provider, self.call(target, command))
        assert self.runs(provider, target) == [SAY, FAIL]

    async def test_a_failure_is_an_outcome(self, provider: BindingProvider, target: Target) -> None:
        """A failure of the command is an outcome, not an exception."""
        outcome = await self.run(provider, self.call(target, FAIL))
        assert (outcome.result, outcome.exit_code) == (BindingResult.FAILED, 4)

    async def test_a_container_that_does_not_run_is_a_failure(self, provider: BindingProvider, target: Target) -> None:
        """A container that does not run is a failure of the command."""
        target.runtime.exit(TARGET, 0)
        for _ in ("it has ended", "it is gone"):
            outcome = await self.run(provider, self.call(target, SAY))
            assert (outcome.result, outcome.exit_code) == (BindingResult.FAILED, None)
            assert outcome.output
            await target.runtime.remove(TARGET)

    async def test_a_command_that_hangs_is_killed(self, provider: BindingProvider, target: Target) -> None:
        """No run outlasts the time limit, which is the provider's own, at most 900 seconds; a command that would is
        killed."""
        start = trio.current_time()
        with trio.move_on_after(2 * LIMIT_SECONDS) as scope:
            outcome = await provider.run(self.call(target, HANG))
        assert not scope.cancelled_caught, "it runs on for ever"
        assert (outcome.result, outcome.exit_code) == (BindingResult.TIMEOUT, None)
        assert target.running == 0
        assert trio.current_time() - start <= LIMIT_SECONDS

    async def test_cancellation_kills_the_command(self, provider: BindingProvider, target: Target) -> None:
        """Cancellation kills it."""

        async def look() -> None:
            assert target.running == 0

        for command in (SAY, HANG):
            call = self.call(target, command)
            await cancel_at_every_await(partial(provider.run, call), look)
        assert (await self.run(provider, self.call(target, SAY))).result is BindingResult.COMPLETED

    async def test_the_program_is_the_images_own(self, provider: BindingProvider, target: Target) -> None:
        """The program is ``/usr/lib/nanocloud/bindings/<command>`` in the container."""
        await self.run(provider, self.call(target, SAY))
        assert [spec.argv for spec in target.started] == [(f"{FOLDER}/{SAY}",) for _ in target.started]

    async def test_arguments_are_words(self, provider: BindingProvider, target: Target) -> None:
        """It gets the arguments in their order, each as one word, whatever it holds; in place of a secret one it gets a
        path."""
        words = ("shop", "a b; rm -rf /", "$HOME", "", "-x")
        await self.run(provider, self.call(target, SAY, *words, SECRET.encode(), "last"))
        for spec in target.started:
            *given, path, last = spec.argv[1:]
            assert (tuple(given), last) == (words, "last")
            assert path.startswith("/")

    async def test_a_secret_is_in_no_argument(self, provider: BindingProvider, target: Target) -> None:
        """One argument. A secret one never appears in an argv: the command gets a path to read it from."""
        await self.run(provider, self.call(target, SAY, SECRET.encode(), "x", b"another"))
        for spec in target.started:
            assert SECRET not in repr((spec.argv, spec.environment, spec))
            assert spec.secrets == (SECRET.encode(), b"another")

    async def test_the_command_runs_in_an_envelope(self, provider: BindingProvider, target: Target) -> None:
        """The envelope: the container's namespaces and seccomp filter, a user that is not root, no capabilities, no
        standard input, an environment of the provider's own, and a time limit."""
        await self.run(provider, self.call(target, SAY))
        for spec in target.started:
            assert spec.user not in (None, "", "0", "root")
            assert not spec.user.startswith(("0:", "root:"))
            assert (spec.capabilities, spec.stdin, spec.terminal) == (frozenset(), False, False)
            assert spec.environment is not None

    async def test_output_is_masked_and_clipped(self, provider: BindingProvider, target: Target) -> None:
        """Standard output and error together, clipped to 1 MiB, with every secret argument masked."""
        outcome = await self.run(provider, self.call(target, SAY, "visible", SECRET.encode()))
        assert "visible" in outcome.output
        assert SECRET not in outcome.output
        outcome = await self.run(provider, self.call(target, FLOOD))
        assert outcome.result is BindingResult.COMPLETED
        assert len(outcome.output) <= LIMIT_CHARACTERS

    async def test_output_is_masked_however_it_comes(self, provider: BindingProvider, target: Target) -> None:
        """Standard output and error together, clipped to 1 MiB, with every secret argument masked."""
        # In pieces, beside bytes that are no text, and with a secret that is nothing.
        outcome = await self.run(provider, self.call(target, DRIP, SECRET.encode(), b"", b"another"))
        assert outcome.result is BindingResult.COMPLETED
        assert not any(secret in outcome.output for secret in (SECRET, "another"))
        assert len(outcome.output) < 100

    async def test_an_outcome_says_when(self, provider: BindingProvider, target: Target) -> None:
        """Seconds since the epoch."""
        outcome = await self.run(provider, self.call(target, SAY))
        assert 1e9 < outcome.started_at <= outcome.finished_at

    @pytest.mark.parametrize("command", ["", "../sh", "/bin/sh", "a b", "A", "a\n"], ids=repr)
    async def test_a_command_that_is_no_name_never_runs(
        self, provider: BindingProvider, target: Target, command: str
    ) -> None:
        """InvalidError: the command is no name of ``a-z``, ``0-9``, ``-`` and ``_``; nothing ran."""
        with pytest.raises(InvalidError):
            await provider.run(self.call(target, command))
        assert self.runs(provider, target) == []

    async def test_runs_side_by_side(self, provider: BindingProvider, target: Target) -> None:
        """They are safe to call concurrently for different objects."""
        outcomes: dict[int, BindingOutcome] = {}

        async def run(number: int) -> None:
            call = self.call(target, FAIL if number % 2 else SAY, str(number), id=f"default/shop/{number}")
            outcomes[number] = await provider.run(call)

        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(run, number)
        assert [outcomes[number].exit_code for number in range(10)] == [0, 4] * 5
