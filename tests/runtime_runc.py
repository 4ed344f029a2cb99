"""The example of a runtime, ``docs/examples/nanocloud-runtime-runc``, beside our own distributions."""

from __future__ import annotations

import shutil

from environments import ROOT

PACKAGE = "docs/examples/nanocloud-runtime-runc"
NODE = ("core", *sorted(f"plugins/{path.parent.name}" for path in (ROOT / "plugins").glob("*/pyproject.toml")), PACKAGE)
"""What a node with this runtime has installed; ours too, so that the configuration has to choose."""
PROGRAMS = ("runc", "conmon", "busybox")


def lacking_programs() -> list[str]:
    return [program for program in PROGRAMS if shutil.which(program) is None]
