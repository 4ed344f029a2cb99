"""The compressed side of a layer: every format, every way of being broken, bounded memory."""

import gzip
import hashlib
import io
import tracemalloc
import zlib

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from nanocloud_dockyard.decompress import BrokenLayerError, DigestedInput, LayerStream

DATA = b"".join(hashlib.sha256(b"%d" % n).digest() * 3 for n in range(9000))
SKIPPABLE = b"\x53\x2a\x4d\x18" + (7).to_bytes(4, "little") + b"a table"


def read_all(compressed, *, size=None, piece=1 << 20):
    stream = io.BytesIO(compressed)
    source = DigestedInput(lambda limit: stream.read(min(limit, piece)), len(compressed) if size is None else size)
    layer = LayerStream(source)
    data = b"".join(iter(lambda: layer.read(1 << 16), b""))
    assert layer.diff_id == hashlib.sha256(data).hexdigest()
    assert source.hexdigest() == hashlib.sha256(compressed[: source.done_bytes]).hexdigest()
    return data


FORMATS = {
    "plain": DATA,
    "gzip": gzip.compress(DATA),
    "gzip in members": b"".join(gzip.compress(DATA[at : at + 100_000]) for at in range(0, len(DATA), 100_000)),
    "gzip with an empty member": gzip.compress(b"") + gzip.compress(DATA) + gzip.compress(b""),
    "zstd": zstd.compress(DATA),
    "zstd in frames": zstd.compress(DATA[:1000]) + zstd.compress(DATA[1000:]),
    "zstd with skippable frames": SKIPPABLE + zstd.compress(DATA) + SKIPPABLE,
}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("piece", [13, 1 << 20])
def test_every_format_is_told_by_its_bytes(format, piece):
    content = FORMATS[format]
    if piece < 100:
        content = {"plain": DATA[:5000]}.get(format) or content
    assert read_all(content, piece=piece) == (DATA[:5000] if content == DATA[:5000] else DATA)


@given(st.lists(st.binary(max_size=3000), max_size=4), st.sampled_from([gzip.compress, zstd.compress]))
def test_members_and_frames_are_joined(parts, compress):
    assert read_all(b"".join(map(compress, parts))) == b"".join(parts)


@pytest.mark.parametrize("format", [name for name in FORMATS if name != "plain"])
def test_a_truncated_stream_is_never_whole(format):
    with pytest.raises(BrokenLayerError, match=r"truncated|not gzip|not zstd"):
        read_all(FORMATS[format][:-3])


def test_an_input_that_ends_early_says_where():
    with pytest.raises(BrokenLayerError, match=r"ends after 100 of 200 bytes"):
        read_all(DATA[:100], size=200)


def test_no_byte_beyond_the_stated_size_is_read():
    assert read_all(DATA, size=1000) == DATA[:1000]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (gzip.compress(DATA) + b"garbage" * 3, "not gzip all through"),
        (gzip.compress(DATA)[:-8] + bytes(8), "not gzip all through"),
        (b"\x1f\x8b" + bytes(50), "not gzip all through"),
        (zstd.compress(DATA) + b"garbage", "not zstd all through"),
        (b"\x28\xb5\x2f\xfd" + b"\xff" * 50, "not zstd all through"),
    ],
)
def test_broken_streams_are_refused(content, says):
    with pytest.raises(BrokenLayerError, match=says):
        read_all(content)


def test_a_zstd_window_over_the_limit_is_refused():
    frame = b"\x28\xb5\x2f\xfd\x00" + bytes([(31 - 10) << 3]) + bytes(20)
    with pytest.raises(BrokenLayerError):
        read_all(frame)


@pytest.mark.parametrize("compress", [gzip.compress, zstd.compress, lambda data: zlib.compress(data, wbits=31)])
def test_memory_does_not_grow_with_the_layer(compress):
    bomb = compress(bytes(64 << 20))
    source = DigestedInput(io.BytesIO(bomb).read, len(bomb))
    layer, size = LayerStream(source), 0
    tracemalloc.start()
    while data := layer.read():
        size += len(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size == 64 << 20
    assert peak < 8 << 20
