"""A terminal's master as two streams that end as pipes do."""

from __future__ import annotations

import os
import tty

from nanocloud.terminals import TerminalInput, TerminalOutput


async def test_output_ends_where_nobody_holds_the_other_side() -> None:
    master, slave = os.openpty()
    tty.setraw(slave)
    async with TerminalOutput(master) as output:
        os.write(slave, b"bye")
        assert await output.receive_some() == b"bye"
        os.close(slave)
        assert await output.receive_some() == b""


async def test_closing_the_input_types_the_end_of_file_once() -> None:
    master, slave = os.openpty()
    tty.setraw(slave)
    typed = TerminalInput(os.dup(master))
    await typed.send_all(b"exit")
    await typed.aclose()
    await typed.aclose()
    os.write(master, b".")
    read = b""
    while not read.endswith(b"."):  # the kernel hands over what is typed in pieces of its own
        read += os.read(slave, 100)
    assert read == b"exit\x04."
    for descriptor in (master, slave):
        os.close(descriptor)


async def test_closing_the_input_of_a_terminal_that_is_gone_is_no_error() -> None:
    master, slave = os.openpty()
    os.close(slave)
    await TerminalInput(master).aclose()
