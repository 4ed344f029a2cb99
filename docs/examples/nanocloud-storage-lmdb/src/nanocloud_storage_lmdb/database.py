"""The file: made whole or not at all, checked before LMDB maps it, grown when it is full.

LMDB writes each page anew and turns to the new ones with the last write of a commit, after a sync: a kill leaves the
state before or after, and a torn write nothing that is read. What it does not guard against is a file that is damaged:
it has no checksums, and a page that a cut file lacks ends the process by SIGBUS. So the structure is verified on
opening (about 200 MB/s), and rows carry checksums of their own.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import attrs
import lmdb
import lmdb.verify
from nanocloud.errors import CorruptError, NanocloudError, ProviderError, UnavailableError
from nanocloud.files import sync_folder

from nanocloud_storage_lmdb.change import Change
from nanocloud_storage_lmdb.map_gate import MapGate
from nanocloud_storage_lmdb.rows import RESTORE, packed
from nanocloud_storage_lmdb.view import Tables, View

T = TypeVar("T")

FORMAT = 1
_FIRST_MAP_BYTES = 16 << 20
_PROBE_BYTES = 1 << 20
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DAMAGE = (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError, lmdb.NotFoundError)


class _NoRoomError(UnavailableError):
    """The next transaction may find room: one that failed so has changed nothing that is read."""


@attrs.define
class Database:
    """An open file. ``write`` is for one thread; views may be had from any."""

    file: Path
    _env: lmdb.Environment
    _tables: Tables
    _gate: MapGate = attrs.field(factory=MapGate)
    _broken: UnavailableError | None = None

    @classmethod
    def open(cls, file: Path) -> Database:
        """Open the file, or make it where there is none.

        Raises:
            CorruptError: it is damaged.
            ProviderError: a newer version of this package wrote it.
            UnavailableError: the disk is full or failed.
        """
        try:
            if not file.exists():
                _make(file)
            _verify(file)
            return _opened(file)
        except lmdb.Error as exc:
            raise _told(exc, file) from exc
        except OSError as exc:
            raise UnavailableError(f"{file} cannot be used: {exc.strerror}") from exc

    def close(self) -> None:
        self._env.close()

    @contextmanager
    def view(self, *, patient: bool = True) -> Iterator[View]:
        """See MapGate for ``patient``."""
        try:
            with self._gate.reading(patient=patient), self._env.begin() as txn:
                yield View(txn, self._tables)
        except lmdb.Error as exc:
            raise _told(exc, self.file) from exc

    def write(self, work: Callable[[Change], T]) -> T:
        """Do ``work`` in one transaction of LMDB; it is durable on return. Done again where the map has to grow first.

        Raises:
            UnavailableError: nothing of it happened. After a failure of the disk that is no lack of room it is raised
                for ever: nobody knows what is on the disk, and the kernel may report the next sync as good.
        """
        if self._broken is not None:
            raise self._broken
        while True:
            try:
                return self._committed(work)
            except lmdb.MapFullError:
                self._grow()
            except lmdb.Error as exc:
                error = _told(exc, self.file)
                if isinstance(error, UnavailableError) and not isinstance(error, _NoRoomError):
                    self._broken = error
                raise error from exc

    def _committed(self, work: Callable[[Change], T]) -> T:
        with self._env.begin(write=True) as txn:  # commits at its end, aborts by an exception
            return work(Change(txn, self._tables))

    def _grow(self) -> None:
        try:
            with self._gate.alone():
                self._env.set_mapsize(2 * self._env.info()["map_size"])
        except lmdb.Error as exc:
            raise _told(exc, self.file) from exc


def _make(file: Path) -> None:
    new = file.with_name(f".{file.name}.new")
    for left in (new, _lock_of(new)):  # by a process that was killed here
        left.unlink(missing_ok=True)
    env = _environment(new)
    try:
        with env.begin(write=True) as txn:
            meta = _tables(env, txn, create=True).meta
            for name, value in ((b"format", FORMAT), (b"revision", 0), (b"compacted", 0)):
                txn.put(name, packed(value), db=meta)
    finally:
        env.close()
    _lock_of(new).unlink()
    new.rename(file)
    sync_folder(file.parent)


def _verify(file: Path) -> None:
    try:
        problems = lmdb.verify.verify(file)  # type: ignore[no-untyped-call]
    except lmdb.verify.VerifyError as exc:
        raise CorruptError(f"{file} is damaged: {exc}", hint=RESTORE) from exc
    if problems:
        raise CorruptError(f"{file} is damaged: {problems[0]}", hint=RESTORE)


def _opened(file: Path) -> Database:
    env = _environment(file)
    try:
        with env.begin(write=True) as txn:
            tables = _tables(env, txn, create=False)
            written = View(txn, tables).number(b"format")
        if written != FORMAT:
            raise ProviderError(
                f"{file} has format {written}; this version of nanocloud-storage-lmdb reads {FORMAT}",
                hint="install the version that wrote it, or a newer one",
            )
    except BaseException:
        env.close()
        raise
    _keep_from_programs(file)
    return Database(file, env, tables)


def _environment(file: Path) -> lmdb.Environment:
    size = file.stat().st_size if file.exists() else 0
    return lmdb.open(
        os.fspath(file), subdir=False, mode=0o600, max_dbs=4, map_size=max(_FIRST_MAP_BYTES, 2 * size), readahead=False
    )


def _tables(env: lmdb.Environment, txn: lmdb.Transaction[bytes], *, create: bool) -> Tables:
    return Tables(*(env.open_db(name, txn=txn, create=create) for name in (b"states", b"log", b"expiry", b"meta")))


def _keep_from_programs(file: Path) -> None:
    """LMDB lets programs inherit its file; a container's monitor would keep it open for days."""
    opened = file.stat()
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        with suppress(OSError):  # that of the listing is closed again
            if os.path.samestat(os.fstat(descriptor), opened):
                os.set_inheritable(descriptor, False)


def _lock_of(file: Path) -> Path:
    """LMDB's table of readers."""
    return file.with_name(f"{file.name}-lock")


def _told(exc: lmdb.Error, file: Path) -> NanocloudError:
    if isinstance(exc, _DAMAGE):
        return CorruptError(f"{file} is damaged: {exc}", hint=RESTORE)
    if isinstance(exc, lmdb.VersionMismatchError):
        return ProviderError(f"{file} was written by another version of LMDB: {exc}")
    if _is_full(exc, file):
        return _NoRoomError(f"there is no room for {file}: {exc}", hint="make room; writes go on then")
    return UnavailableError(f"{file} failed: {exc}", hint="mend the disk, then start the server again")


def _is_full(exc: lmdb.Error, file: Path) -> bool:
    """Whether the disk is full, or its owner's share of it. LMDB says EIO where a write came back short, too, as the
    last one does that still finds some room: asking for more room tells the two apart."""
    code = getattr(exc, "code", 0)
    if code != errno.EIO:
        return code in _NO_ROOM
    size = file.stat().st_size
    with file.open("r+b") as opened:
        try:
            os.posix_fallocate(opened.fileno(), size, _PROBE_BYTES)
            opened.truncate(size)
        except OSError as failure:
            return failure.errno in _NO_ROOM
    return False
