"""Errors as the command line shows them."""

from __future__ import annotations

import pytest

from nanocloud.cli.main import print_error
from nanocloud.client.errors import ApiError


def test_what_a_server_says_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    status = {"message": "no\x1b]0;owned\x07\rpod\nhere\x9b2J", "details": {"hint": "try\x1b[2Jit"}}
    print_error(ApiError(404, status, "/x"))
    assert capsys.readouterr().err == "error: no?]0;owned??pod\nhere?2J\n  try?[2Jit\n"
