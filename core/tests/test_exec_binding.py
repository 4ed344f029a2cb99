"""The envelope in which binding commands run."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from nanocloud.bindings import ENVIRONMENT, OUTPUT_LIMIT_BYTES, BindingConfig, ExecBinding, mask
from nanocloud.config import NodeConfig
from nanocloud.errors import ConfigError, InvalidError, ProviderError
from nanocloud.providers.binding import BindingOutcome, BindingResult
from nanocloud.providers.runtime import ContainerId
from nanocloud.testkit import FakeExec, FakeRuntime
from nanocloud.testkit.specs import binding_call, container_spec

TARGET = ContainerId("mariadb")


@pytest.fixture
async def runtime(tmp_path: Path) -> FakeRuntime:
    runtime = FakeRuntime()
    await runtime.create(container_spec(TARGET, tmp_path))
    await runtime.start(TARGET)
    return runtime


async def run(
    runtime: FakeRuntime,
    *arguments: str | bytes,
    command: str = "create_user",
    config: BindingConfig = BindingConfig(),  # noqa: B008 - frozen
) -> BindingOutcome:
    """Bytes are secret."""
    call = binding_call(command, *arguments, container=TARGET, runtime=runtime)
    return await ExecBinding(config=config, clock=lambda: 1000 + trio.current_time()).run(call)


async def test_the_command_runs_confined(runtime: FakeRuntime) -> None:
    outcome = await run(runtime, "shop", "a b; rm -rf /", "$HOME")
    assert (outcome.result, outcome.exit_code) == (BindingResult.COMPLETED, 0)
    (spec,) = runtime.containers[TARGET].execs
    assert spec.argv == ("/usr/lib/nanocloud/bindings/create_user", "shop", "a b; rm -rf /", "$HOME")
    assert (spec.user, spec.capabilities, spec.stdin, spec.terminal) == ("65534:65534", frozenset(), False, False)
    assert (spec.environment, spec.working_directory) == (ENVIRONMENT, "/")
    assert set(ENVIRONMENT) == {"PATH", "LANG", "HOME"}


async def test_another_user_and_time_come_from_the_configuration(
    runtime: FakeRuntime, autojump_clock: MockClock
) -> None:
    await run(runtime, config=BindingConfig(uid=2000, gid=3000))
    assert runtime.containers[TARGET].execs[-1].user == "2000:3000"

    async def hang(_: FakeExec) -> int:
        await trio.sleep_forever()
        raise AssertionError

    runtime.exec_handler = hang
    outcome = await run(runtime, config=BindingConfig(timeout_seconds=7))
    assert outcome.result is BindingResult.TIMEOUT
    assert outcome.finished_at - outcome.started_at == pytest.approx(7)


@pytest.mark.parametrize(
    "table", [{"uid": 0}, {"gid": 0}, {"uid": -1}, {"timeout_seconds": 0}, {"timeout_seconds": 901}]
)
def test_commands_never_run_as_root_nor_for_ever(table: dict[str, int]) -> None:
    (field,) = table
    with pytest.raises(ConfigError, match=rf"binding-exec: {field} is .*from 1 to"):
        NodeConfig(sections={"binding-exec": table}).section("binding-exec", BindingConfig)


async def test_secrets_are_read_from_descriptors_in_order(runtime: FakeRuntime) -> None:
    await run(runtime, "shop", b"hunter2", "x", b"swordfish")
    (spec,) = runtime.containers[TARGET].execs
    assert spec.argv[1:] == ("shop", "/dev/fd/3", "x", "/dev/fd/4")
    assert spec.secrets == (b"hunter2", b"swordfish")
    assert "hunter2" not in repr(spec)


async def test_output_of_both_streams_is_kept_and_masked(runtime: FakeRuntime) -> None:
    async def noisy(session: FakeExec) -> int:
        assert session.stderr is not None
        await session.stdout.send_all(b"password hunter2hunter22 ")
        await session.stderr.send_all(b"\xff failed")
        return 4

    runtime.exec_handler = noisy
    outcome = await run(runtime, b"hunter2", b"hunter22")
    assert (outcome.result, outcome.exit_code) == (BindingResult.FAILED, 4)
    assert "hunter" not in outcome.output
    assert "failed" in outcome.output
    assert "\ufffd" in outcome.output


async def test_a_command_that_takes_too_long_is_killed(runtime: FakeRuntime, autojump_clock: MockClock) -> None:
    ended = trio.Event()

    async def slow(session: FakeExec) -> int:
        await session.stdout.send_all(b"working")
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    runtime.exec_handler = slow
    outcome = await run(runtime)
    assert (outcome.result, outcome.exit_code, outcome.output) == (BindingResult.TIMEOUT, None, "working")
    assert outcome.finished_at - outcome.started_at == 90
    assert ended.is_set()


async def test_endless_output_is_clipped_and_does_not_stop_the_command(runtime: FakeRuntime) -> None:
    async def endless(session: FakeExec) -> int:
        for _ in range(20):
            await session.stdout.send_all(b"x" * 100_000)
        return 0

    runtime.exec_handler = endless
    outcome = await run(runtime)
    assert outcome.result is BindingResult.COMPLETED
    assert len(outcome.output) == OUTPUT_LIMIT_BYTES


async def test_a_secret_that_the_limit_cuts_in_two_is_not_shown_in_part(runtime: FakeRuntime) -> None:
    async def at_the_edge(session: FakeExec) -> int:
        await session.stdout.send_all(b"x" * (OUTPUT_LIMIT_BYTES - 4) + b"hunter2")
        return 1

    runtime.exec_handler = at_the_edge
    assert "h" not in (await run(runtime, b"hunter2")).output


async def test_a_target_that_does_not_run_is_an_outcome(runtime: FakeRuntime) -> None:
    runtime.exit(TARGET, 0)
    outcome = await run(runtime)
    assert (outcome.result, outcome.exit_code) == (BindingResult.FAILED, None)
    assert "is exited, not running" in outcome.output


async def test_a_runtime_that_fails_while_it_runs_is_an_outcome(runtime: FakeRuntime) -> None:
    async def broken(_: FakeExec) -> int:
        raise ProviderError("the monitor died")

    runtime.exec_handler = broken
    outcome = await run(runtime, b"hunter2")
    assert (outcome.result, outcome.output) == (BindingResult.FAILED, "the monitor died")


@pytest.mark.parametrize("command", ["", "../sh", "/bin/sh", "a b", "A", "x" * 65, "a\n"])
async def test_a_command_that_is_no_name_never_runs(runtime: FakeRuntime, command: str) -> None:
    with pytest.raises(InvalidError, match="is not a name"):
        await run(runtime, command=command)
    assert runtime.containers[TARGET].execs == []


@pytest.mark.parametrize(
    ("text", "secrets", "shown"),
    [
        ("abc", ["b"], "a********c"),
        ("abcdef", ["abc", "abcdef"], "********"),
        ("abc", ["", " "], "abc"),
        ("key: s3cret", ["s3cret\n"], "key: ********"),
        ("a.c abc", ["a.c"], "******** abc"),
    ],
)
def test_masking(text: str, secrets: list[str], shown: str) -> None:
    assert mask(text, secrets) == shown
