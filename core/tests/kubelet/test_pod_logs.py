"""Reading logs: from the end, since a time, following, over rotation."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest
import trio

from nanocloud.kubelet.logs import LogOptions, last_line, read_log

if TYPE_CHECKING:
    from pathlib import Path


def line(second: int, text: str, *, tag: str = "F", stream: str = "stdout") -> str:
    return f"2026-01-01T00:00:{second:02}.123456789Z {stream} {tag} {text}\n"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "0.log"
    path.write_text("".join(line(number, f"line {number}") for number in range(10)))
    return path


def fill(path: Path, content: str | bytes) -> None:
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def append(path: Path, content: str) -> None:
    with path.open("a") as file:
        file.write(content)


def rotate_away(path: Path) -> None:
    path.rename(path.with_suffix(".log.1"))


async def read(path: Path, **options: object) -> str:
    text = b""
    async with aclosing(read_log(path, LogOptions(**options), ended=trio.Event())) as pieces:  # type: ignore[arg-type]
        async for piece in pieces:
            text += piece
    return text.decode()


async def test_the_prefix_is_taken_off(log: Path) -> None:
    assert await read(log) == "".join(f"line {number}\n" for number in range(10))


async def test_times_are_shown_when_asked_for(log: Path) -> None:
    assert (await read(log, timestamps=True, tail_lines=1)) == "2026-01-01T00:00:09.123456789Z line 9\n"


@pytest.mark.parametrize(("count", "first"), [(0, 10), (1, 9), (3, 7), (10, 0), (50, 0)])
async def test_the_last_lines(log: Path, count: int, first: int) -> None:
    assert await read(log, tail_lines=count) == "".join(f"line {number}\n" for number in range(first, 10))


async def test_the_last_lines_of_a_long_log_are_found_across_blocks(log: Path) -> None:
    fill(log, "".join(line(0, f"{number} " + "x" * 500) for number in range(2000)))
    text = await read(log, tail_lines=300)
    assert [row.split()[0] for row in text.splitlines()] == [str(number) for number in range(1700, 2000)]


@pytest.mark.parametrize(("since", "first"), [(4.0, 4), (4.2, 5), (0, 0), (60, 10)])
async def test_since_a_time(log: Path, since: float, first: int) -> None:
    epoch = 1767225600.0  # 2026-01-01T00:00:00Z
    assert await read(log, since=epoch + since) == "".join(f"line {number}\n" for number in range(first, 10))


@pytest.mark.parametrize("limit", [1, 6, 7, 8, 1000])
async def test_a_limit_cuts_at_the_byte(log: Path, limit: int) -> None:
    assert await read(log, limit_bytes=limit) == (await read(log))[:limit]


async def test_parts_of_a_line_are_joined(log: Path) -> None:
    fill(log, line(1, "one ", tag="P") + line(1, "line", tag="F") + line(2, "next"))
    assert await read(log) == "one line\nnext\n"


async def test_bytes_that_are_no_text_pass_through(log: Path) -> None:
    fill(log, line(1, "").encode()[:-1] + b"\xff\x00\n")
    async with aclosing(read_log(log, LogOptions(), ended=trio.Event())) as pieces:
        assert [piece async for piece in pieces] == [b"\xff\x00\n"]


async def test_a_line_that_is_not_whole_yet_waits(log: Path) -> None:
    fill(log, line(1, "whole") + line(2, "half")[:-3])
    assert await read(log) == "whole\n"


async def test_following_gives_new_lines_until_the_container_ends_and_all_is_read(log: Path) -> None:
    ended, got = trio.Event(), b""

    async def write() -> None:
        for number in range(3):
            await trio.testing.wait_all_tasks_blocked(0.01)
            append(log, line(20 + number, f"new {number}"))
        append(log, line(30, "the last words"))
        ended.set()

    with trio.fail_after(10):
        async with (
            aclosing(read_log(log, LogOptions(follow=True, tail_lines=0), ended=ended)) as pieces,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(write)
            async for piece in pieces:
                got += piece
    assert got == b"new 0\nnew 1\nnew 2\nthe last words\n"


async def test_following_goes_on_in_a_rotated_file(log: Path) -> None:
    ended = trio.Event()
    with trio.fail_after(10):
        async with aclosing(read_log(log, LogOptions(follow=True, tail_lines=1), ended=ended)) as pieces:
            assert await anext(pieces) == b"line 9\n"
            async with trio.open_nursery() as nursery:

                async def rotate() -> None:
                    await trio.testing.wait_all_tasks_blocked()
                    rotate_away(log)
                    fill(log, line(40, "after"))

                nursery.start_soon(rotate)
                assert await anext(pieces) == b"after\n"


async def test_the_last_line_of_a_log(log: Path) -> None:
    assert last_line(log) == "line 9"
    assert last_line(log.with_name("missing")) == ""
