"""A tar of exactly the files that are wanted, and nothing that is not."""

from __future__ import annotations

import io
import tarfile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanocloud.errors import InvalidError, LimitExceededError, NanocloudError
from nanocloud.planning.archive import MAX_FILE_BYTES, pack, unpack

NAMES = ("a.json", "b.json")


def tar(*members: tuple[str, bytes, dict[str, Any]], form: int = tarfile.USTAR_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for name, data, fields in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for field, value in fields.items():
                setattr(info, field, value)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


A, B = ("a.json", b"one", {}), ("b.json", b"two", {})


@given(st.binary(max_size=2000), st.binary(max_size=2000))
def test_what_was_packed_is_unpacked_here_and_by_tar(first: bytes, second: bytes) -> None:
    archive = pack({"a.json": first, "b.json": second})
    assert unpack(archive, NAMES) == {"a.json": first, "b.json": second}
    with tarfile.open(fileobj=io.BytesIO(archive)) as other:
        assert [(m.name, m.mode, m.isreg()) for m in other] == [("a.json", 0o600, True), ("b.json", 0o600, True)]
        member = other.extractfile("b.json")
        assert member is not None
        assert member.read() == second


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_an_archive_that_was_unpacked_and_packed_again_is_read(form: int) -> None:
    again = tar(("b.json", b"two", {"mtime": 1_700_000_000, "uid": 5, "uname": "me"}), A, form=form)
    assert unpack(again, NAMES) == {"a.json": b"one", "b.json": b"two"}


@pytest.mark.parametrize(
    ("archive", "told"),
    [
        (b"", "it holds no a.json and no b.json"),
        (b"x" * 1024, "no tar file"),
        (tar(A), "it holds no b.json"),
        (tar(A, B, ("c.json", b"", {})), "holds 'c.json'"),
        (tar(A, A, B), "holds 'a.json'"),
        (tar(A, ("./b.json", b"two", {})), "holds './b.json'"),
        (tar(A, ("../b.json", b"two", {})), r"holds '\.\./b.json'"),
        (tar(A, ("b.json", b"", {"type": tarfile.SYMTYPE, "linkname": "/etc/shadow"})), "no plain regular file"),
        (tar(A, ("b.json", b"", {"type": tarfile.LNKTYPE, "linkname": "a.json"})), "no plain regular file"),
        (tar(A, ("b.json", b"", {"type": tarfile.DIRTYPE})), "no plain regular file"),
        (tar(A, ("b.json", b"", {"type": tarfile.FIFOTYPE})), "no plain regular file"),
        (tar(A, ("b.json", b"two", {"pax_headers": {"comment": "x"}}), form=tarfile.PAX_FORMAT), "no plain regular"),
        (tar(A, ("x" * 90 + "/b.json", b"two", {})), "no plain regular file|holds"),
        (pack({"a.json": b"1", "b.json": b"2" * 600})[:-1500], "ends within b.json"),
        (tar(A, B) + b"x", "something after its files"),
    ],
)
def test_anything_else_is_refused(archive: bytes, told: str) -> None:
    with pytest.raises(InvalidError, match=told):
        unpack(archive, NAMES)


def test_a_file_has_a_limit_before_it_is_read() -> None:
    large = tar(("a.json", bytes(MAX_FILE_BYTES + 1), {}), B)
    with pytest.raises(LimitExceededError, match=f"a.json has {MAX_FILE_BYTES + 1} bytes; the limit is"):
        unpack(large, NAMES)


@given(st.binary(max_size=3000))
def test_any_bytes_are_answered(archive: bytes) -> None:
    with pytest.raises(NanocloudError):
        unpack(archive, NAMES)


@given(st.integers(0, 1023), st.integers(1, 255))
def test_a_changed_header_is_refused_or_means_the_same(position: int, flip: int) -> None:
    archive = bytearray(pack({"a.json": b"one", "b.json": b"two"}))
    archive[position] ^= flip
    try:
        found = unpack(bytes(archive), NAMES)
    except NanocloudError:
        return
    assert found.keys() == set(NAMES)
