"""The images of the node: documents, unpacked layers, and which image needs what. All methods block.

Folder ``state_dir/images/``::

    blobs/sha256/<hex>      indexes, manifests and configurations; digested again on every read
    layers/<hex>/diff/      an unpacked layer, named by its diff_id; overlayfs's lower folders
    layers/<hex>/layer.json what is in it (LayerRecord)
    layers/<hex>/.unsynced  a link that names a boot: not all of the layer may be on the disk yet
    layers/.new-*           a layer being unpacked, its folder ``diff`` locked (flock) by who unpacks it
    layers/.gone-*          a layer being removed
    images/<hex>.json       an image by its manifest's digest (ImageRecord)
    layout/                 an OCI layout folder of what was built here; its writer is ``layout_writer``

A layer appears by one rename when all of it is written: what stands in ``layers/<hex>`` is whole. Nobody waits for the
disk: ``settle`` brings layers there afterwards, and if the machine goes down before, the next boot sees the mark and
removes the layer. The mark is made before the rename, and a link is metadata alone, so that a file system that keeps
the order of metadata never shows the layer without it. The other files are checked when they are read; one that a crash
broke counts as absent and is fetched again.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import re
import secrets
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import attrs

from nanocloud.errors import ImageError, InvalidError
from nanocloud.files import private_folder
from nanocloud.models.converter import structure, unstructure
from nanocloud.providers.image import Digest
from nanocloud_dockyard.source import digest_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

T = TypeVar("T")
_HEX = re.compile(r"[0-9a-f]{64}")
_NEW, _GONE, _UNSYNCED = ".new-", ".gone-", ".unsynced"
_BOOT = Path("/proc/sys/kernel/random/boot_id")


@attrs.frozen(kw_only=True)
class LayerRecord:
    """``layer.json``"""

    entries: int
    whiteouts: int
    size_bytes: int
    opaque_root: bool = False
    implied: tuple[str, ...] = ()
    """Folders without an entry of their own; names that are not UTF-8 hold surrogates."""


@attrs.frozen(kw_only=True)
class ImageRecord:
    """``images/<hex>.json``"""

    references: tuple[str, ...]
    """As it was asked for, latest last."""
    documents: tuple[Digest, ...]
    """Blobs that it needs: index, manifest, configuration."""
    layers: tuple[Digest, ...]
    """diff_ids, lowest first."""


@attrs.frozen
class NewLayer:
    """A layer in the making; ``root_fd`` is its empty folder, locked."""

    path: Path
    root_fd: int


class Store:
    """The folder. Processes share it through locks and renames only."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.layout = root / "layout"
        self._blobs, self._layers, self._images = root / "blobs" / "sha256", root / "layers", root / "images"
        self._boot = _BOOT.read_text().strip()

    def prepare(self) -> None:
        """Make the folders, remove what an interrupted run left."""
        private_folder(self.root)
        for folder in (self._blobs, self._layers, self._images):
            private_folder(folder)
        self.sweep()

    def sweep(self) -> None:
        """Remove unfinished and half-removed layers that nobody works on."""
        for path in self._layers.iterdir():
            if path.name.startswith(_GONE) or (path.name.startswith(_NEW) and not _is_locked(path / "diff")):
                shutil.rmtree(path, ignore_errors=True)
            elif _HEX.fullmatch(path.name) and _boot_of(path) not in (None, self._boot):
                path.rename(gone := self._layers / (_GONE + secrets.token_hex(8)))
                shutil.rmtree(gone, ignore_errors=True)
        for folder in (self._blobs, self._images):
            for path in folder.glob(".*.tmp"):
                path.unlink(missing_ok=True)

    # Documents

    def blob(self, digest: Digest) -> bytes | None:
        """The document, if it is here and right."""
        try:
            data = (self._blobs / _hex(digest)).read_bytes()
        except FileNotFoundError:
            return None
        return data if digest_of(data) == digest else None

    def keep(self, image: Digest, record: ImageRecord, documents: Iterable[bytes]) -> None:
        """Store an image's documents and say that it needs them; references add up."""
        for data in documents:
            if self.blob(digest_of(data)) is None:
                _write(self._blobs / _hex(digest_of(data)), data)
        if known := self.image(image):
            others = tuple(name for name in known.references if name not in record.references)
            record = attrs.evolve(
                record,
                references=(others + record.references)[-16:],
                documents=tuple(dict.fromkeys(known.documents + record.documents)),
            )
        if record != known:
            _write(self._images / f"{_hex(image)}.json", json.dumps(unstructure(record)).encode())

    def image(self, digest: Digest) -> ImageRecord | None:
        return _read(self._images / f"{_hex(digest)}.json", ImageRecord)

    def images(self) -> dict[Digest, ImageRecord]:
        """Every image that was ever kept and not removed, whole or not."""
        found: dict[Digest, ImageRecord] = {}
        for path in self._images.glob("*.json"):
            digest = Digest(f"sha256:{path.stem}")
            if _HEX.fullmatch(path.stem) and (record := self.image(digest)):
                found[digest] = record
        return found

    # Layers

    def layer_path(self, diff_id: Digest) -> Path:
        return self._layers / _hex(diff_id) / "diff"

    def layer(self, diff_id: Digest) -> LayerRecord | None:
        """What is in the layer, if it is here; then all of it is."""
        return _read(self._layers / _hex(diff_id) / "layer.json", LayerRecord)

    @contextmanager
    def new_layer(self) -> Iterator[NewLayer]:
        """A place to unpack a layer. What was not finished when the body ends is removed."""
        path = self._layers / (_NEW + secrets.token_hex(8))
        path.mkdir(mode=0o700)
        (path / "diff").mkdir(mode=0o755)
        root_fd = os.open(path / "diff", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fchmod(root_fd, 0o755)
            fcntl.flock(root_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield NewLayer(path, root_fd)
        finally:
            os.close(root_fd)
            shutil.rmtree(path, ignore_errors=True)

    def finish_layer(self, new: NewLayer, diff_id: Digest, record: LayerRecord) -> None:
        """The layer is unpacked and verified: make it visible. ``settle`` makes it durable."""
        (new.path / "layer.json").write_bytes(json.dumps(unstructure(record)).encode())
        (new.path / _UNSYNCED).symlink_to(self._boot)
        try:
            new.path.rename(self._layers / _hex(diff_id))
        except OSError as exc:
            if exc.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise  # else somebody else was faster, with the same content

    def settle(self) -> None:
        """Bring every layer that is here now to the disk, and say so. Takes as long as the disk does."""
        marks = [path / _UNSYNCED for path in self._layers.iterdir() if _HEX.fullmatch(path.name)]
        marks = [mark for mark in marks if mark.is_symlink()]
        if marks:
            _syncfs(self._layers)
            for mark in marks:
                mark.unlink(missing_ok=True)

    # Removal

    def drop_image(self, digest: Digest) -> None:
        (self._images / f"{_hex(digest)}.json").unlink(missing_ok=True)

    def drop_documents(self, keep: Callable[[Digest], bool]) -> None:
        for path in self._blobs.iterdir():
            if _HEX.fullmatch(path.name) and not keep(Digest(f"sha256:{path.name}")):
                path.unlink(missing_ok=True)

    def drop_layers(self, keep: Callable[[Digest], bool]) -> None:
        """Take layers out of sight; ``sweep`` removes them."""
        for path in self._layers.iterdir():
            if _HEX.fullmatch(path.name) and not keep(Digest(f"sha256:{path.name}")):
                path.rename(self._layers / (_GONE + secrets.token_hex(8)))


def _hex(digest: Digest) -> str:
    found = digest.removeprefix("sha256:")
    if not _HEX.fullmatch(found):  # names become paths here
        raise ImageError(f"{digest!r} is not sha256:<64 hexadecimal digits>")
    return found


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    temporary.write_bytes(data)
    temporary.replace(path)


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        return structure(json.loads(path.read_bytes()), kind)
    except (OSError, ValueError, InvalidError):
        return None


def _is_locked(folder: Path) -> bool:
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _boot_of(layer: Path) -> str | None:
    """The boot that an unsynced layer is from; None where the layer is on the disk."""
    try:
        return str((layer / _UNSYNCED).readlink())
    except OSError:
        return None


def _syncfs(folder: Path) -> None:
    """One call for all: fsync of each file would cost more than writing it."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if libc.syncfs(fd):
            raise OSError(ctypes.get_errno(), "syncfs")
    finally:
        os.close(fd)
