"""``$option`` in defaults and binding arguments.

One pass: what comes in with a value is never looked at again, so a value that holds ``$`` means nothing. The result is
bounded while it grows: a label of 4 KiB that repeats a value must not cost gigabytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nanocloud.planning.contract import REFERENCE
from nanocloud.planning.reserved import MAX_VALUE_LENGTH

if TYPE_CHECKING:
    from collections.abc import Mapping


def substitute(text: str, values: Mapping[str, str]) -> str:
    """Replace each ``$name`` whose name is in ``values``; everything else stays as it stands.

    Raises:
        ValueError: the result would be longer than an option's value may be.
    """
    parts: list[str] = []
    length = end = 0
    for match in REFERENCE.finditer(text):
        if match[1] not in values:
            continue
        parts += (text[end : match.start()], values[match[1]])
        length += len(parts[-1]) + len(parts[-2])
        end = match.end()
        if length > MAX_VALUE_LENGTH:
            break
    parts.append(text[end:])
    if length + len(parts[-1]) > MAX_VALUE_LENGTH:
        raise ValueError(f"is longer than {MAX_VALUE_LENGTH} characters when its options are put in")
    return "".join(parts)
