"""Applies one layer's tar to an empty folder, as overlayfs wants to find it.

Every layer has its own folder, so what it removes becomes an overlayfs mark: ``.wh.<name>`` a character device 0/0,
``.wh..wh..opq`` the attribute ``trusted.overlay.opaque``. Attributes of overlayfs itself, and those that belong to the
host that packed the layer, are left out: an image must not speak to overlayfs.

Source: OCI image specification, layer.md; Linux, Documentation/filesystems/overlayfs.rst, "whiteouts and opaque
directories". Imported by the unpacking child: standard library only.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from nanocloud_dockyard.folders import OPAQUE_XATTR, WHITEOUT_DEVICE, Folders, is_whiteout, lstat, make_folder
from nanocloud_dockyard.tarstream import Entry, Kind, LayerEntryError, LayerLimitError, TarStream, shown

if TYPE_CHECKING:
    from typing import BinaryIO

    from nanocloud_dockyard.limits import UnpackLimits

_WHITEOUT, _META, _OPAQUE = b".wh.", b".wh..wh.", b".wh..wh..opq"
_MAX_NAME_BYTES = 255
_MAX_LINK_BYTES = 4095
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DEVICE_TYPES = {
    Kind.CHARACTER_DEVICE: stat.S_IFCHR,
    Kind.BLOCK_DEVICE: stat.S_IFBLK,
    Kind.FIFO: stat.S_IFIFO,
}
_KEPT_XATTRS = ("security.capability", "system.posix_acl_access", "system.posix_acl_default")


class LayerStats(NamedTuple):
    """What a layer holds."""

    entries: int
    """Files, folders, links, devices; whiteouts too."""
    whiteouts: int
    size_bytes: int
    """Of its files' data."""
    opaque_root: bool
    """Nothing of any lower layer is seen; overlayfs has no mark for that at the root."""
    implied: tuple[bytes, ...]
    """Folders that entries lie in but that have no entry themselves."""


def apply_layer(layer: BinaryIO, root_fd: int, limits: UnpackLimits) -> LayerStats:
    """Apply one uncompressed layer to the empty folder ``root_fd``; stop at the first bad entry.

    Shape: a tar stream (see ``tarstream``). Entries are created relative to folder descriptors and no link is
    followed, so no entry can leave the tree; nothing that exists is ever opened for writing. Owners, permissions,
    times, attributes, hard links and devices are kept. An entry replaces an earlier one of its name, but never a
    folder by something else. Sizes in bytes; memory grows with the number of folders, not with sizes.

    Raises:
        LayerEntryError: an entry that must not be applied; names the entry, escaped, and the rule.
        LayerLimitError: more bytes, entries or depth than ``limits``; names the limit.
        OSError: the file system refused.

    Source: OCI image specification, layer.md, "Applying Changesets"; pax: POSIX.1-2017, pax, "Extended Header".
    """
    return _Layer(root_fd, limits).apply(TarStream(layer, limits))


class _Layer:
    def __init__(self, root_fd: int, limits: UnpackLimits) -> None:
        self._root_fd, self._limits = root_fd, limits
        self._implied: set[bytes] = set()
        self._implied_bytes = 0
        self._folders = Folders(root_fd, self._imply)
        self._targets = Folders(root_fd, self._imply)  # of hard links; apart, so that neither loses its place
        self._folder_times: dict[bytes, int] = {}
        self._entries = self._whiteouts = self._bytes = 0
        self._opaque_root = False

    def apply(self, tar: TarStream) -> LayerStats:
        try:
            for entry in tar:
                self._one(entry, tar)
            self._set_folder_times()
        finally:
            self._folders.close()
            self._targets.close()
        return LayerStats(self._entries, self._whiteouts, self._bytes, self._opaque_root, tuple(sorted(self._implied)))

    def _imply(self, path: bytes) -> None:
        """One entry can ask for a hundred folders: they are bounded apart from the entries."""
        self._implied.add(path)
        self._implied_bytes += len(path)
        if self._implied_bytes > (most := self._limits.max_implied_bytes):
            raise LayerLimitError(
                f"{shown(path)}: names over {most} bytes of folders without entry (max_implied_bytes)"
            )

    def _one(self, entry: Entry, tar: TarStream) -> None:
        path = self._components(entry.name)
        if _WHITEOUT in entry.name:
            if any(part.startswith(_META) and part != _OPAQUE for part in path):
                return  # bookkeeping of AUFS, which old builders left in
            if any(part.startswith(_WHITEOUT) for part in path[:-1]):
                raise LayerEntryError(f"{shown(entry.name)}: a whiteout has nothing below it")
        self._entries += 1
        try:
            if path and path[-1].startswith(_WHITEOUT):
                self._whiteout(path, entry)
            else:
                self._create(path, entry, tar)
        except LayerEntryError as exc:
            message = str(exc)
            named = shown(entry.name)
            raise exc if message.startswith(f"{named}:") else LayerEntryError(f"{named}: {message}") from None
        except (OverflowError, ValueError) as exc:
            raise LayerEntryError(f"{shown(entry.name)}: {exc}") from None
        except OSError as exc:
            raise OSError(exc.errno, f"{shown(entry.name)}: {os.strerror(exc.errno or 0)}") from None

    def _components(self, name: bytes) -> list[bytes]:
        """A leading slash is dropped, as every engine does; ``..`` is refused, as is what no file system takes."""
        if len(name) > self._limits.max_path_bytes:
            raise LayerLimitError(f"{shown(name)}: a path over {self._limits.max_path_bytes} bytes (max_path_bytes)")
        parts = [part for part in name.split(b"/") if part not in (b"", b".")]
        if b".." in parts:
            raise LayerEntryError(f"{shown(name)}: a path with ..")
        if len(parts) > self._limits.max_depth:
            raise LayerLimitError(f"{shown(name)}: deeper than {self._limits.max_depth} folders (max_depth)")
        if len(name) > _MAX_NAME_BYTES and any(len(part) > _MAX_NAME_BYTES for part in parts):
            raise LayerEntryError(f"{shown(name)}: a name over {_MAX_NAME_BYTES} bytes")
        return parts

    def _whiteout(self, path: list[bytes], entry: Entry) -> None:
        self._whiteouts += 1
        folder = self._folders.open(path[:-1], create=True)
        if path[-1] == _OPAQUE:
            self._opaque_root = self._opaque_root or len(path) == 1
            os.setxattr(folder, OPAQUE_XATTR, b"y")
            return
        name = path[-1].removeprefix(_WHITEOUT)
        if name in (b"", b".", b".."):
            raise LayerEntryError("a whiteout without a name")
        found = lstat(name, folder)
        if found is None:
            os.mknod(name, stat.S_IFCHR, WHITEOUT_DEVICE, dir_fd=folder)
        elif stat.S_ISDIR(found.st_mode):
            # What this layer has stays; what lower layers have below it goes.
            os.setxattr(self._folders.open([*path[:-1], name], create=False), OPAQUE_XATTR, b"y")

    def _create(self, path: list[bytes], entry: Entry, tar: TarStream) -> None:
        if entry.kind is Kind.FOLDER:
            self._folder(path, entry)
            return
        if not path:
            raise LayerEntryError(f"the root is no {entry.kind.name.lower().replace('_', ' ')}")
        folder = self._folders.open(path[:-1], create=True)
        if entry.kind is Kind.FILE:
            self._file(path[-1], folder, entry, tar)
        elif entry.kind is Kind.HARD_LINK:
            self._hard_link(path, folder, entry)
        elif entry.kind is Kind.SYMLINK:
            self._symlink(path[-1], folder, entry)
        else:
            self._device(path[-1], folder, entry)

    def _folder(self, path: list[bytes], entry: Entry) -> None:
        if path:
            parent = self._folders.open(path[:-1], create=True)
            found = lstat(path[-1], parent)
            if found is None or is_whiteout(found):
                os.close(make_folder(path[-1], parent))
            elif not stat.S_ISDIR(found.st_mode):
                os.unlink(path[-1], dir_fd=parent)
                os.close(make_folder(path[-1], parent))
        joined = b"/".join(path)
        self._implied.discard(joined)
        folder = self._folders.open(path, create=False)
        os.fchown(folder, entry.uid, entry.gid)
        _set_xattrs(folder, entry)
        os.fchmod(folder, entry.mode)
        self._folder_times[joined] = entry.mtime_ns

    def _file(self, name: bytes, folder: int, entry: Entry, tar: TarStream) -> None:
        try:
            fd = os.open(name, _CREATE, 0o600, dir_fd=folder)
        except FileExistsError:
            self._remove(name, folder)
            fd = os.open(name, _CREATE, 0o600, dir_fd=folder)
        try:
            tar.copy_to(fd)
            # In this order: a write and a change of owner take capabilities and setuid away.
            os.fchown(fd, entry.uid, entry.gid)
            _set_xattrs(fd, entry)
            os.fchmod(fd, entry.mode)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)
        self._bytes += entry.size

    def _symlink(self, name: bytes, folder: int, entry: Entry) -> None:
        if not 0 < len(entry.link) <= _MAX_LINK_BYTES:
            raise LayerEntryError(f"a link target must have 1 to {_MAX_LINK_BYTES} bytes")
        self._remove(name, folder)
        os.symlink(entry.link, name, dir_fd=folder)
        self._set_by_name(name, folder, entry)

    def _hard_link(self, path: list[bytes], folder: int, entry: Entry) -> None:
        target = self._components(entry.link)
        if not target or target == path:
            raise LayerEntryError(f"a hard link to {shown(entry.link) or 'nothing'}")
        holder = self._targets.open(target[:-1], create=False)
        found = lstat(target[-1], holder)
        if found is None:
            raise LayerEntryError(f"a hard link to {shown(entry.link)}, which does not exist in this layer")
        if stat.S_ISDIR(found.st_mode) or is_whiteout(found):
            raise LayerEntryError(f"a hard link to {shown(entry.link)}, which is a folder or a whiteout")
        self._remove(path[-1], folder)
        os.link(target[-1], path[-1], src_dir_fd=holder, dst_dir_fd=folder, follow_symlinks=False)

    def _device(self, name: bytes, folder: int, entry: Entry) -> None:
        device = os.makedev(*entry.device)
        if entry.kind is Kind.CHARACTER_DEVICE and device == WHITEOUT_DEVICE:
            raise LayerEntryError("a character device 0/0, which overlayfs takes for a whiteout")
        self._remove(name, folder)
        os.mknod(name, _DEVICE_TYPES[entry.kind] | 0o600, device, dir_fd=folder)
        os.chmod(name, entry.mode, dir_fd=folder)
        self._set_by_name(name, folder, entry)

    def _set_by_name(self, name: bytes, folder: int, entry: Entry) -> None:
        os.chown(name, entry.uid, entry.gid, dir_fd=folder, follow_symlinks=False)
        os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=folder, follow_symlinks=False)

    def _remove(self, name: bytes, folder: int) -> None:
        """Make way for an entry. No folder goes: with one, the layer contradicts itself."""
        found = lstat(name, folder)
        if found is None:
            return
        if not stat.S_ISDIR(found.st_mode):
            os.unlink(name, dir_fd=folder)
            return
        raise LayerEntryError("takes the place of a folder of the same layer")

    def _set_folder_times(self) -> None:
        """Last, for whatever is made in a folder changes its time."""
        for joined in sorted(self._folder_times.keys() | self._implied):
            folder = self._folders.open(joined.split(b"/") if joined else [], create=False)
            time = self._folder_times.get(joined, 0)
            os.utime(folder, ns=(time, time))


def _set_xattrs(fd: int, entry: Entry) -> None:
    for name, value in entry.xattrs.items():
        if name in _KEPT_XATTRS or (name.startswith("user.") and not name.startswith("user.overlay.")):
            os.setxattr(fd, name, value)
