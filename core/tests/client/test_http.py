"""HTTP as commands speak it: how answers are framed, and what is none. End-to-end tests make whole requests."""

from __future__ import annotations

import io

import pytest

from nanocloud.client.http import ClosedError, ProtocolError, Response, read_response, request_head


class Pieces(io.RawIOBase):
    """What a server sends, in the pieces in which it comes; reading beyond them is a failure, as it would block."""

    def __init__(self, *pieces: bytes, closes: bool = False) -> None:
        self.left, self._closes = list(pieces), closes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        if not self.left:
            assert self._closes, "the reader waits for more than it needs"
            return 0
        piece = self.left.pop(0)
        part, rest = piece[: len(buffer)], piece[len(buffer) :]
        if rest:
            self.left.insert(0, rest)
        buffer[: len(part)] = part
        return len(part)


def answer(*pieces: bytes, closes: bool = False) -> Response:
    return read_response(io.BufferedReader(Pieces(*pieces, closes=closes)))


def test_a_body_of_a_length_ends_there_and_leaves_the_connection_usable() -> None:
    found = answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Two: a: b \r\n\r\nhel", b"lo")
    assert (found.status, found.headers["x-two"], found.read(), found.is_read) == (200, "a: b", b"hello", True)


def test_a_chunked_body_is_joined() -> None:
    found = answer(
        b"HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhel",
        b"lo\r",
        b"\n6\r\n world\r\n0\r\nT: 1\r\n\r\n",
    )
    assert found.read() == b"hello world"


def test_a_line_of_a_stream_is_given_as_soon_as_it_is_there() -> None:
    found = answer(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"4\r\none\n\r\n", b"6\r\ntwo\nth\r\n")
    assert [found.readline(), found.readline()] == [b"one\n", b"two\n"]


def test_a_line_may_come_in_many_chunks_and_the_last_without_an_end() -> None:
    found = answer(b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n1\r\na\r\n2\r\nb\n\r\n1\r\nc\r\n0\r\n\r\n")
    assert [found.readline(), found.readline(), found.readline()] == [b"ab\n", b"c", b""]
    assert found.is_read


def test_a_body_without_a_length_lasts_until_the_connection_ends() -> None:
    assert answer(b"HTTP/1.1 200 OK\r\n\r\nall ", b"of it", closes=True).read() == b"all of it"


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_some_answers_have_no_body(status: bytes) -> None:
    assert answer(b"HTTP/1.1 " + status + b"\r\n\r\n").read() == b""


def test_interim_answers_are_passed_over() -> None:
    found = answer(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 \r\nLink: x\r\n\r\nHTTP/1.1 404 \r\ncontent-length: 0\r\n\r\n"
    )
    assert (found.status, found.read()) == (404, b"")


def test_a_large_body_comes_whole() -> None:
    content = bytes(range(256)) * 4096
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content)
    assert answer(head, *(content[at : at + 1000] for at in range(0, len(content), 1000))).read() == content


@pytest.mark.parametrize(
    "said",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno header\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 70_000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"1" * 5000 + b"\r\n\r\n",
        b"HTTP/1.1 404 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: x\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 102 Processing\r\n\r\n" * 100 + b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * 70_000 + b"\r\n",
    ],
)
def test_what_is_no_answer_or_ends_in_the_middle_is_told(said: bytes) -> None:
    with pytest.raises(ProtocolError):
        answer(said, closes=True).read()


def test_a_connection_that_was_closed_before_the_answer_is_told_apart() -> None:
    with pytest.raises(ClosedError):
        answer(closes=True)


@pytest.mark.parametrize("target", ["/a b", "/a\r\nX: y", "/a\nb", "/caf\u00e9", "/a\x7f"])
def test_a_target_never_becomes_more_than_one_line(target: str) -> None:
    with pytest.raises(ProtocolError):
        request_head("GET", target, {})


@pytest.mark.parametrize("value", ["Bearer secret\n", "Bearer secr\u00e9t", "a\r\nX: secret"])
def test_a_header_never_becomes_more_than_one_and_is_not_shown(value: str) -> None:
    with pytest.raises(ProtocolError, match="'Authorization' cannot be sent") as caught:
        request_head("GET", "/", {"Authorization": value})
    assert "secr" not in str(caught.value)


def test_a_request_says_how_long_its_body_is() -> None:
    assert request_head("GET", "/x?y=z", {"Host": "h"}) == b"GET /x?y=z HTTP/1.1\r\nHost: h\r\n\r\n"
    assert b"Content-Length: 2\r\n" in request_head("POST", "/", {}, b"{}")
    assert b"Content-Length: 0\r\n" in request_head("POST", "/", {})
