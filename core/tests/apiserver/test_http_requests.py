"""Heads and bodies of HTTP/1.1 as bytes: what is understood, and that what is ambiguous is refused."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nanocloud.apiserver.http_requests import (
    MAX_FIELDS,
    ChunkedBody,
    Head,
    HeadParser,
    RequestError,
    SizedBody,
)


def head_of(*fields: bytes, line: bytes = b"GET / HTTP/1.1", host: bytes = b"Host: node") -> Head:
    return HeadParser().parse(b"\r\n".join((line, *([host] if host else []), *fields)) + b"\r\n\r\n")


def refusal(*fields: bytes, line: bytes = b"POST / HTTP/1.1", host: bytes = b"Host: node") -> int:
    with pytest.raises(RequestError) as caught:
        head_of(*fields, line=line, host=host)
    return caught.value.code


def test_a_head_is_taken_apart() -> None:
    head = head_of(b"X-One:  a b \t", b"x-one:", line=b"PATCH /a%20b/c?x=%20&y HTTP/1.1")
    assert (head.method, head.path, head.raw_path, head.query) == ("PATCH", "/a b/c", b"/a%20b/c", b"x=%20&y")
    assert head.fields.pairs == [(b"host", b"node"), (b"x-one", b"a b"), (b"x-one", b"")]
    assert (head.fields.length, head.fields.closes, head.fields.upgrade) == (0, False, b"")


def test_an_absolute_target_brings_its_host() -> None:
    head = head_of(line=b"GET https://other:1?x=/ HTTP/1.1")
    assert (head.path, head.query, head.fields.pairs) == ("/", b"x=/", [(b"host", b"other:1")])
    assert head_of(line=b"GET http://other/v?q HTTP/1.1").path == "/v"


def test_fields_that_come_again_are_those_of_before_and_others_are_not() -> None:
    parser = HeadParser()
    first = parser.parse(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n")
    again = parser.parse(b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
    assert again.fields is first.fields
    assert again.path == "/2"
    assert parser.parse(b"GET /2 HTTP/1.1\r\nHost: b\r\n\r\n").fields.pairs == [(b"host", b"b")]
    assert parser.parse(b"GET /2 HTTP/1.0\r\nHost: b\r\n\r\n").fields.closes
    absolute = parser.parse(b"GET http://c/ HTTP/1.1\r\nHost: b\r\n\r\n")
    assert absolute.fields.pairs == [(b"host", b"c")]
    assert parser.parse(b"GET / HTTP/1.1\r\nHost: b\r\n\r\n").fields.pairs == [(b"host", b"b")]


@pytest.mark.parametrize(
    ("fields", "closes", "expects", "upgrade"),
    [
        ([b"Connection: keep-alive, Close"], True, False, b""),
        ([b"Connection: Upgrade", b"Upgrade: WebSocket"], False, False, b"websocket"),
        ([b"Upgrade: websocket"], False, False, b""),
        ([b"Expect: 100-Continue", b"Content-Length: 3"], False, True, b""),
    ],
)
def test_what_fields_say_about_the_connection(fields: list[bytes], closes: bool, expects: bool, upgrade: bytes) -> None:
    found = head_of(*fields).fields
    assert (found.closes, found.expects_continue, found.upgrade) == (closes, expects, upgrade)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ([b"Content-Length: 5", b"Transfer-Encoding: chunked"], 400),
        ([b"Content-Length: 5", b"Content-Length: 5"], 400),
        ([b"Content-Length: 5, 5"], 400),
        ([b"Content-Length: +5"], 400),
        ([b"Content-Length: -1"], 400),
        ([b"Content-Length: 0x5"], 400),
        ([b"Content-Length: \xb2"], 400),
        ([b"Content-Length:"], 400),
        ([b"Content-Length: " + b"9" * 16], 400),
        ([b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"], 501),
        ([b"Transfer-Encoding: gzip, chunked"], 501),
        ([b"Transfer-Encoding: \x0bchunked"], 400),
        ([b"Transfer-Encoding : chunked"], 400),
        ([b"Transfer-Encoding: identity"], 501),
        ([b"X: a", b" folded"], 400),
        ([b"X: a\nTransfer-Encoding: chunked"], 400),
        ([b"X: a\rY: b"], 400),
        ([b"X: a\x00"], 400),
        ([b": nameless"], 400),
        ([b"no colon"], 400),
        ([b"Host: second"], 400),
        ([b"Expect: 200-ok"], 417),
        ([b"X: y"] * MAX_FIELDS, 431),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(fields: list[bytes], code: int) -> None:
    assert refusal(*fields) == code


@pytest.mark.parametrize(
    "line",
    [
        b"GET / HTTP/1.2",
        b"GET / HTTP/2.0",
        b"GET  / HTTP/1.1",
        b"GET / HTTP/1.1 ",
        b"GET /\tx HTTP/1.1",
        b"GET /a b HTTP/1.1",
        b"GET /\xc3\xa9 HTTP/1.1",
        b"GET /x#y HTTP/1.1",
        b"GET / HTTP/1.1\nX: y",
        b"G\x00T / HTTP/1.1",
        b"GET",
        b" GET / HTTP/1.1",
        b"GET node HTTP/1.1",
        b"GET https://user@node/ HTTP/1.1",
        b"GET ftp://node/ HTTP/1.1",
        b"CONNECT node:443 HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
    ],
)
def test_a_request_line_has_one_form(line: bytes) -> None:
    assert refusal(line=line) == 400


def test_a_host_is_needed_and_is_a_host() -> None:
    assert refusal(host=b"") == 400
    assert refusal(host=b"Host: a/b") == 400
    assert head_of(host=b"Host:").fields.pairs == [(b"host", b"")]
    assert head_of(line=b"GET / HTTP/1.0", host=b"").minor == 0


def test_http_1_0_knows_no_chunks_and_no_upgrade() -> None:
    assert refusal(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.0") == 400
    assert not head_of(b"Connection: upgrade", b"Upgrade: websocket", line=b"GET / HTTP/1.0").fields.upgrade


def test_a_long_field_of_spaces_is_read_in_one_go() -> None:
    spaces = b"X: " + b" " * 60_000 + b"\x00"  # a pattern that tries again would take minutes
    assert refusal(spaces) == 400


def take_all(body: ChunkedBody | SizedBody, pieces: list[bytes]) -> tuple[bytes, bytes]:
    """What the body gave, and what it left."""
    buffer, taken = bytearray(), b""
    for piece in pieces:
        buffer += piece
        while found := body.take(buffer):
            taken += found
    return taken, bytes(buffer)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.lists(st.integers(0, 2000), max_size=12))
@example([b"x" * 20] * 3, list(range(60)))
def test_a_chunked_body_reads_the_same_however_it_is_cut(chunks: list[bytes], cuts: list[int]) -> None:
    data = b"".join(b"%X;name=value\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    body = ChunkedBody()
    taken, left = take_all(body, split(data + b"000\r\nTrailer: x\r\n\r\nNEXT", cuts))
    assert (taken, left, body.is_complete) == (b"".join(chunks), b"NEXT", True)


@given(st.binary(max_size=60), st.integers(0, 60), st.lists(st.integers(0, 60), max_size=5))
def test_a_sized_body_ends_where_it_was_announced_to(data: bytes, length: int, cuts: list[int]) -> None:
    body = SizedBody(length)
    assert take_all(body, split(data, cuts)) == (data[:length], data[length:])
    assert body.is_complete is (len(data) >= length)


@pytest.mark.parametrize(
    "data",
    [
        b"5\nhello\r\n0\r\n\r\n",
        b"5\r\nhello!\r\n0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5 \r\nhello\r\n",
        b" 5\r\nhello\r\n",
        b"+5\r\nhello\r\n",
        b"0x5\r\nhello\r\n",
        b"\r\n",
        b"-1\r\n",
        b"1" * 16 + b"\r\n",
        b"5;a\x00\r\nhello\r\n",
        b"0\r\nno trailer\r\n\r\n",
        b"0\r\n folded: x\r\n\r\n",
        b"0\r\nTrailer: a\n\r\n",
        b"5;" + b"x" * 1100,
        b"0\r\n" + b"x" * 9000,
    ],
)
def test_a_chunk_has_one_form(data: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        take_all(ChunkedBody(), [data])
    assert caught.value.code == 400


def test_framing_may_not_outweigh_what_it_frames() -> None:
    taken, _ = take_all(ChunkedBody(), [b"1\r\nx\r\n" * 20_000])
    assert len(taken) == 20_000
    with pytest.raises(RequestError, match="more framing than data"):
        take_all(ChunkedBody(), [b"1;" + b"e" * 900 + b"\r\nx\r\n"] * 40)
    with pytest.raises(RequestError, match="more framing than data"):
        take_all(ChunkedBody(), [b"0\r\n", *([b"Trailer: " + b"x" * 1000 + b"\r\n"] * 20)])


@given(st.binary(max_size=200))
@example(b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n")
def test_no_bytes_make_the_parsers_fail_otherwise(data: bytes) -> None:
    for parse in (HeadParser().parse, lambda rest: take_all(ChunkedBody(), [rest])):
        try:
            parse(data)
        except RequestError:
            pass
