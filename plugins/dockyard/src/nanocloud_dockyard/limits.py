"""How much of an image is accepted. What is over a limit is refused with the limit's name.

Imported by the unpacking child, so it needs the standard library only.
"""

from __future__ import annotations

from typing import NamedTuple

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


class UnpackLimits(NamedTuple):
    """Bounds of one layer. Every field is the name that the error says."""

    max_layer_bytes: int = 32 * GIB
    """Of the uncompressed tar stream, headers and padding too."""
    max_entries: int = 1_000_000
    max_depth: int = 128
    """Components of one path; each open folder of a path costs a descriptor."""
    max_path_bytes: int = 4096
    max_implied_bytes: int = MIB
    """Names of folders, together, that entries lie in but that have no entry themselves."""
    max_header_bytes: int = MIB
    """Of one pax or GNU extension header, and of all that belong to one entry."""


MAX_MANIFEST_BYTES = 4 * MIB
"""The distribution specification asks registries to accept at least this much."""
MAX_CONFIG_BYTES = 4 * MIB
MAX_INDEX_ENTRIES = 1024
MAX_INDEX_DEPTH = 4
MAX_LAYERS = 127
"""What Docker allows; overlayfs itself stops at 500."""
MAX_TOKEN_BYTES = 64 * KIB
MAX_REDIRECTS = 5
MAX_ARTIFACT_BYTES = 4 * GIB
"""One file that a recipe fetches."""
