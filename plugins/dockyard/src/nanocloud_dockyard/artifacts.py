"""Files that recipes fetch by URL and digest: downloaded once, checked whenever used, given to builds as a context.

Folder ``builder/artifacts/``: ``<sha256>``, a whole file that had that digest; ``new``, one being written under the
builder's lock. The digest is what the recipe says, wherever the file comes from: a mirror or a local file that the user
names must hold the same bytes. Proxies and trusted authorities are the host's, as for everything else in a build.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from nanocloud.errors import ImageError
from nanocloud.files import private_folder, sync_folder
from nanocloud_dockyard.limits import MAX_ARTIFACT_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from nanocloud_dockyard.recipes import Artifact, Recipe

_PIECE_BYTES = 1 << 20
_KEEP_SECONDS = 90 * 86400


class UnusableError(Exception):
    """A source that cannot be used; the text goes on after the source's name."""


def provide(
    recipe: Recipe, folder: Path, target: Path, *, arguments: Mapping[str, str], progress: Callable[[str], None]
) -> Path | None:
    """Put the recipe's files into the new folder ``target``; None: it has none.

    Args:
        folder: where files are kept by digest.
        arguments: for an artifact's ``argument``: a URL or a local file to take instead.

    Raises:
        ImageError: a file cannot be had, or is another one; names the recipe and the source, and says what to do.
    """
    if not recipe.artifacts:
        return None
    private_folder(folder)
    shutil.rmtree(target, ignore_errors=True)
    private_folder(target)
    for artifact in recipe.artifacts:
        kept = folder / artifact.sha256
        if not _holds(kept, artifact.sha256):
            source = arguments.get(artifact.argument or "", artifact.url)
            progress(f"taking {artifact.file} from {_shown(source)}")
            _take(recipe.service, artifact, source, kept)
        os.utime(kept)  # used now; see collect
        _place(kept, target / artifact.file)
    return target


def collect(folder: Path) -> None:
    """Remove kept files that no build has used for a long time."""
    oldest = time.time() - _KEEP_SECONDS
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.stat().st_mtime < oldest:
            path.unlink()


def _take(service: str, artifact: Artifact, source: str, kept: Path) -> None:
    new = kept.with_name("new")
    try:
        digest = _write(new, _pieces(source))
        if digest != artifact.sha256:
            raise UnusableError(f"holds sha256:{digest}; the recipe demands sha256:{artifact.sha256}")
        new.replace(kept)
        sync_folder(kept.parent)
    except UnusableError as exc:
        raise ImageError(f"{service}: {_shown(source)} {exc}", hint=_hint(service, artifact)) from exc.__cause__
    finally:
        new.unlink(missing_ok=True)


def _pieces(source: str) -> Iterator[bytes]:
    if "://" not in source:
        return _read(Path(source).expanduser())
    from nanocloud_dockyard import download  # brings an HTTP client along, which commands that build nothing do without

    return download.pieces(source)


def _hint(service: str, artifact: Artifact) -> str:
    if artifact.argument is None:
        return f"the recipe can be built where this address can be reached: {artifact.url}"
    return (
        "name a mirror's URL or a local file that has this digest: "
        f"nanocloud dockyard build {service} --build-arg {artifact.argument}=/path/or/url"
    )


def _read(path: Path) -> Iterator[bytes]:
    try:
        if not path.is_file():
            raise UnusableError("is no file" if path.exists() else "does not exist")
        with path.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                yield piece
    except OSError as exc:
        raise UnusableError(f"cannot be read: {exc.strerror}") from exc


def _write(path: Path, pieces: Iterable[bytes]) -> str:
    """SHA-256 of what was written."""
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as file:
        os.fchmod(file.fileno(), 0o644)  # as it is in the build, unless the recipe says otherwise
        for piece in pieces:
            size += len(piece)
            if size > MAX_ARTIFACT_BYTES:
                raise UnusableError(f"is over {MAX_ARTIFACT_BYTES} bytes")
            digest.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _holds(path: Path, sha256: str) -> bool:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except FileNotFoundError:
        return False


def _place(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another filesystem
        shutil.copyfile(source, target)


def _shown(source: str) -> str:
    """Without what may be secret: user, password and query of a URL."""
    if "://" not in source:
        return source
    try:
        parts = urlsplit(source)
    except ValueError:
        return f"{source.partition('://')[0]}://..."
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
