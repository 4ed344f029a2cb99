"""Where keys stand: byte keys of up to 16 KiB, in their order, on LMDB keys of at most 511 bytes.

A *place* stands for a key at the head of an LMDB key, where something of fixed length follows it (a revision). It keeps
the order of keys, and no place is the head of another:

    short   the key with every 00 written as 00 ff, then 00 00
    long    the first 470 bytes of the key so written, then 01, then the key's SHA-256

A short place takes what is up to 470 bytes when written; a long one takes the rest. Long keys that begin with the same
470 bytes stand together (a *group*), at the place in the order where they belong, but among themselves in the order
of their digests: who reads them sorts each group by the keys themselves, which are kept beside the values. The keys of
API objects are far shorter; a group of more than one is rare.
"""

from __future__ import annotations

from hashlib import sha256

_WRITTEN_BYTES = 470
_END, _CUT = b"\x00\x00", b"\x01"
_SHORT_BYTES = _WRITTEN_BYTES + len(_END)
MAX_PLACE_BYTES = _WRITTEN_BYTES + len(_CUT) + 32


def place_of(key: bytes) -> bytes:
    written = key.replace(b"\x00", b"\x00\xff")
    if len(written) <= _WRITTEN_BYTES:
        return written + _END
    return written[:_WRITTEN_BYTES] + _CUT + sha256(key).digest()


def short_key(place: bytes) -> bytes | None:
    """The key that stands at ``place``; None for a long one, which the place does not tell."""
    return place[: -len(_END)].replace(b"\x00\xff", b"\x00") if len(place) <= _SHORT_BYTES else None


def group_of(place: bytes) -> bytes:
    """What the places of a group have in common; a short place is a group of its own."""
    return place if len(place) <= _SHORT_BYTES else place[: _WRITTEN_BYTES + len(_CUT)]


def first_place(key: bytes) -> bytes:
    """No place of ``key`` or of a greater key comes before it."""
    return group_of(place_of(key))


def last_place(key: bytes) -> bytes:
    """No place of a key that is less than ``key`` comes at or after it."""
    place = place_of(key)
    group = group_of(place)
    return place if group == place else group[: -len(_CUT)] + b"\x02"
