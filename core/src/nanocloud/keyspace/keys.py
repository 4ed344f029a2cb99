"""Keys are tuples of segments; a storage sees bytes. This module goes from one to the other.

Each segment is its UTF-8 bytes and a NUL, which no segment may hold. So the order of the bytes is the order of the
tuples (by code points, a shorter key before the longer ones it begins), and the keys below a prefix are one range that
ends at a segment: ``("ns", "prod")`` is never a prefix of ``("ns", "prod2")``. A segment may be empty: an object
without a namespace has an empty one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nanocloud.errors import FieldError, InvalidError

if TYPE_CHECKING:
    from typing import TypeAlias

Key: TypeAlias = "tuple[str, ...]"

MAX_SEGMENTS = 16
MAX_SEGMENT_CHARACTERS = 253


def encode(key: Key) -> bytes:
    """The bytes of a key.

    Raises:
        InvalidError: the key breaks a rule above, or a limit; names the segment.
    """
    if not key:
        raise InvalidError("a key needs at least one segment")
    return _encode(key)


def prefix_range(prefix: Key) -> tuple[bytes, bytes | None]:
    """The range (start, end) of the keys that begin with the segments of ``prefix``; ``()`` is every key."""
    if prefix == ():
        return b"", None
    start = _encode(prefix)
    return start, start[:-1] + b"\x01"


def after(key: Key) -> bytes:
    """The smallest bytes that come after ``key``."""
    return encode(key) + b"\x00"


def decode(data: bytes) -> Key:
    return tuple(data[:-1].decode().split("\x00"))


def display(key: Key) -> str:
    """How messages name a key."""
    return "/" + "/".join(key)


def _encode(key: Key) -> bytes:
    if not isinstance(key, tuple) or len(key) > MAX_SEGMENTS:
        raise _invalid(key, f"a key is a tuple of at most {MAX_SEGMENTS} segments")
    for index, segment in enumerate(key):
        if not isinstance(segment, str) or len(segment) > MAX_SEGMENT_CHARACTERS or "\x00" in segment:
            rule = f"a segment is a string of at most {MAX_SEGMENT_CHARACTERS} characters without NUL"
            raise _invalid(key, f"{rule}; segment {index} is {segment!r:.80}")
    try:
        return ("\x00".join(key) + "\x00").encode()
    except UnicodeEncodeError as exc:  # a lone surrogate
        raise _invalid(key, "a segment must be encodable as UTF-8") from exc


def _invalid(key: object, rule: str) -> InvalidError:
    message = f"{key!r:.120} is no key: {rule}"
    return InvalidError(message, (FieldError("key", rule),))
