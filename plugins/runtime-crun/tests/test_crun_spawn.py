"""Programs of the host: what they get of the server, and what they do not."""

from __future__ import annotations

import os
import signal

import pytest

from nanocloud_runtime_crun._spawn import spawn


async def said_by(script: str, environment: dict[str, str] | None = None) -> tuple[int, str]:
    """Exit code and output of a shell script."""
    reading, writing = os.pipe()
    try:
        child = spawn(["/bin/sh", "-c", script], {1: writing}, environment or {})
    finally:
        os.close(writing)
    with os.fdopen(reading) as output:
        return await child.wait(), output.read()


async def test_a_program_has_the_environment_and_the_exit_code_it_is_given() -> None:
    assert await said_by('echo "$A b"; exit 7', {"A": "ä 1"}) == (7, "ä 1 b\n")


async def test_a_program_has_the_descriptors_that_are_listed_and_none_of_pythons() -> None:
    own = os.pipe()
    try:
        code, said = await said_by("ls -l /proc/self/fd | sed -n 's/.* \\([0-9]*\\) -> \\(.*\\)/\\1 \\2/p'")
        pipe = f"pipe:[{os.fstat(own[0]).st_ino}]"
    finally:
        for number in own:
            os.close(number)
    held = dict(line.split(" ", 1) for line in said.splitlines())
    assert code == 0
    assert (held["0"], held["2"]) == ("/dev/null", "/dev/null")
    assert pipe not in held.values()


async def test_what_python_ignores_a_program_does_not() -> None:
    assert signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN
    _, said = await said_by("grep -E 'Sig(Ign|Blk)' /proc/self/status")
    masks = {line.split(":\t")[0]: int(line.split(":\t")[1], 16) for line in said.splitlines()}
    assert not masks["SigIgn"] >> (signal.SIGPIPE - 1) & 1
    assert masks["SigBlk"] == 0


async def test_a_program_ended_by_a_signal_tells_which() -> None:
    assert (await said_by("kill -KILL $$"))[0] == 128 + signal.SIGKILL


async def test_a_program_that_is_not_there_is_named() -> None:
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError, match="/nonexistent/program"):
        spawn(["/nonexistent/program"], {})
    assert set(os.listdir("/proc/self/fd")) == before
