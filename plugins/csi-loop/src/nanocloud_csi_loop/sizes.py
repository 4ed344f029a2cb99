"""Byte counts as people read them."""

from __future__ import annotations

KIB, MIB, GIB, TIB = 1024, 1024**2, 1024**3, 1024**4


def human(size_bytes: int) -> str:
    """``1.5 GiB``: at most one decimal, none where it is exact; plain bytes below 1 KiB."""
    for unit, name in ((TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size_bytes >= unit:
            whole, rest = divmod(size_bytes, unit)
            return f"{whole} {name}" if rest == 0 else f"{size_bytes / unit:.1f} {name}"
    return f"{size_bytes} bytes"
