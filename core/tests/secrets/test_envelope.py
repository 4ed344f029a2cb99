"""Sealed values: opened only by their node, in their place, unchanged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanocloud.errors import CorruptError, NotFoundError
from nanocloud.secrets import Envelope, create_key, load_envelope, new_key

if TYPE_CHECKING:
    from pathlib import Path

ENVELOPE = Envelope(bytes(range(32)))


@given(st.binary(max_size=2000), st.text(max_size=50))
def test_what_was_sealed_opens_in_its_context(plaintext: bytes, context: str) -> None:
    sealed = ENVELOPE.seal(plaintext, context)
    assert ENVELOPE.unseal(sealed, context) == plaintext
    assert len(plaintext) < 8 or plaintext not in sealed


def test_sealing_twice_gives_two_values() -> None:
    assert ENVELOPE.seal(b"x", "c") != ENVELOPE.seal(b"x", "c")


@pytest.mark.parametrize("context", ["", "secrets/default/b", "secrets/default/a ", "Secrets/default/a"])
def test_a_value_moved_elsewhere_does_not_open(context: str) -> None:
    sealed = ENVELOPE.seal(b"password", "secrets/default/a")
    with pytest.raises(CorruptError, match="changed or belongs elsewhere"):
        ENVELOPE.unseal(sealed, context)


def test_no_changed_bit_goes_unnoticed() -> None:
    sealed = ENVELOPE.seal(b"password", "c")
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 1
        with pytest.raises(CorruptError):
            ENVELOPE.unseal(bytes(changed), "c")


def test_no_part_of_a_value_opens() -> None:
    sealed = ENVELOPE.seal(b"password", "c")
    for length in range(len(sealed)):
        with pytest.raises(CorruptError):
            ENVELOPE.unseal(sealed[:length], "c")
    with pytest.raises(CorruptError):
        ENVELOPE.unseal(sealed + b"\0", "c")


def test_another_node_says_that_it_is_another() -> None:
    with pytest.raises(CorruptError, match="sealed under another node key"):
        Envelope(b"\1" * 32).unseal(ENVELOPE.seal(b"x", "c"), "c")


def test_a_digest_depends_on_key_context_and_value() -> None:
    digest = ENVELOPE.digest(b"x", "c")
    assert digest == ENVELOPE.digest(b"x", "c")
    others = {ENVELOPE.digest(b"y", "c"), ENVELOPE.digest(b"x", "d"), Envelope(b"\1" * 32).digest(b"x", "c")}
    assert len(others | {digest}) == 4


def test_a_node_key_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    create_key(path)
    key = path.read_bytes()
    create_key(path)
    assert path.read_bytes() == key
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_envelope(path).unseal(Envelope(key).seal(b"x", "c"), "c") == b"x"


def test_a_node_key_that_is_not_there_or_cut(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"node\.key does not exist"):
        load_envelope(tmp_path / "node.key")
    (tmp_path / "node.key").write_bytes(b"short")
    with pytest.raises(CorruptError, match="has 5 bytes instead of 32"):
        load_envelope(tmp_path / "node.key")


def test_a_signature_depends_on_key_context_and_message_and_is_no_digest() -> None:
    signature = ENVELOPE.sign(b"x", "c")
    assert signature == ENVELOPE.sign(b"x", "c")
    others = {ENVELOPE.sign(b"y", "c"), ENVELOPE.sign(b"x", "d"), Envelope(b"\1" * 32).sign(b"x", "c")}
    assert len(others | {signature, ENVELOPE.digest(b"x", "c")}) == 5
    assert len(signature) == 64


def test_a_key_id_tells_keys_apart() -> None:
    keys = [new_key(), new_key()]
    assert len({Envelope(key).key_id for key in keys}) == 2
    assert Envelope(keys[0]).key_id not in keys[0].hex()
