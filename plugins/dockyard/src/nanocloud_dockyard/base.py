"""The base of every recipe, ``nanocloud/debian:12``: Debian's smallest set of packages, by mmdebstrap, as one layer.

``builder/base.json`` records what the base in the builder's store was made from. It is removed before the base is
replaced and written after, so after a crash there is no base rather than a doubtful one.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from typing import TYPE_CHECKING

import attrs

from nanocloud.errors import InvalidError
from nanocloud.files import private_folder, write_durably
from nanocloud.models.converter import structure
from nanocloud_dockyard.recipes import CATALOG, folder_digest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nanocloud_dockyard.buildah import Buildah
    from nanocloud_dockyard.host_apt import HostApt

REFERENCE = "nanocloud/debian:12"
SUITE = "bookworm"
EPOCH = 1735689600
"""2025-01-01. Files that an installation makes, and layers, get this time: equal packages make equal layers."""

_DEFINITION = CATALOG / "_base"
_OPTIONS = (
    "--mode=root",
    "--variant=minbase",
    "--format=tar",
    "--skip=output/dev",  # the runtime makes /dev
    '--aptopt=Acquire::Languages "none"',
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/info/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",  # licences stay
    "--dpkgopt=force-unsafe-io",  # a layer is synced once, when it is whole
)


@attrs.frozen(kw_only=True)
class BaseRecord:
    """``base.json``."""

    definition: str
    digest: str
    """Of the image's configuration, which names its layer."""


def definition() -> str:
    """SHA-256 (hex) over everything in this package that shapes the base."""
    parts = (folder_digest(_DEFINITION), SUITE, str(EPOCH), *_OPTIONS)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def current(folder: Path) -> BaseRecord | None:
    """The base that stands ready, or None: never made, made from another definition, or broken off."""
    try:
        record = structure(json.loads((folder / "base.json").read_bytes()), BaseRecord)
    except (FileNotFoundError, ValueError, InvalidError):
        return None
    return record if record.definition == definition() else None


def make(
    folder: Path, buildah: Buildah, apt: HostApt, bootstrap: Callable[..., str], progress: Callable[[str], None]
) -> BaseRecord:
    """Bootstrap Debian, import it into the builder's store and record it.

    Args:
        bootstrap: runs one program with more environment variables (``build_process.run`` with the log bound).
    """
    forget(folder)
    context = private_folder(buildah.scratch / "base")
    progress(f"installing Debian {SUITE} (mmdebstrap)")
    # Without sources of the host mmdebstrap chooses; what it chose is kept for the recipes' own packages.
    bootstrap(
        (
            *("mmdebstrap", *_OPTIONS),
            f"--aptopt={apt.settings}",
            *(() if apt.sources else (f"--customize-hook=copy-out /etc/apt/sources.list {apt.folder}",)),
            f"--customize-hook={_script(context)}",
            *("--", SUITE, str(context / "base.tar")),
            *((str(apt.sources),) if apt.sources else ()),
        ),
        environment={"SOURCE_DATE_EPOCH": str(EPOCH), "TMPDIR": str(buildah.scratch)},
    )
    if apt.sources is None:
        write_durably(folder / "default-sources.list", (apt.folder / "sources.list").read_bytes())
    for file in _DEFINITION.iterdir():
        shutil.copyfile(file, context / file.name)
    progress(f"importing {REFERENCE}")
    digest = buildah.build(context, tag=REFERENCE, timestamp=EPOCH)
    record = BaseRecord(definition=definition(), digest=digest)
    write_durably(folder / "base.json", json.dumps(attrs.asdict(record)).encode())
    shutil.rmtree(context)
    return record


def forget(folder: Path) -> None:
    """The base is made anew before the next recipe."""
    (folder / "base.json").unlink(missing_ok=True)


def sources(folder: Path, apt: HostApt) -> Path:
    """The apt sources for the packages of a recipe."""
    return apt.sources or folder / "default-sources.list"


def _script(context: Path) -> Path:
    """A copy that is executable, whatever an installer made of the file's mode; mmdebstrap runs it without a shell."""
    script = context / "customize.sh"
    shutil.copyfile(_DEFINITION / script.name, script)
    script.chmod(0o700)
    return script
