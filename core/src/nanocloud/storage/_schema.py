"""The file's format, and the connections to it.

``log`` is the history and holds every value once; ``kv`` leads from a key to its newest row in it. A row's id is
``revision << 10 | position in the transaction``, so the history is append-only, sorted, and addressed by integers.
``prev`` is the id of the row that a row replaces (0: none): older states are found by walking back along it, and a
compaction finds what it may drop. A row without value is a tombstone; ``kv`` keeps deleted keys until their tombstone
is compacted.

``meta`` has two numbers: ``compacted`` (history before it is not readable) and ``swept`` (its rows are removed up to
here; smaller than ``compacted`` while a sweep is under way or was interrupted).

The store's revision is that of the newest row, so the newest row is never swept, not even a tombstone.
"""

from __future__ import annotations

import os
import sqlite3
from typing import TYPE_CHECKING

from nanocloud.errors import CorruptError, NanocloudError, ProviderError, UnavailableError
from nanocloud.storage._lock import sync_folder

if TYPE_CHECKING:
    from pathlib import Path

POSITION_BITS = 10
APPLICATION_ID = 0x4E434B53  # "NCKS", so that file(1) and a wrong path can be told apart
SCHEMA_VERSION = 1
_PAGE_BYTES = 4096
_JOURNAL_BYTES = 16 << 20
_JOURNAL_STEP_BYTES = 2 << 20  # a few milliseconds, in which a transaction that comes has to wait

_TABLES = """
CREATE TABLE log (
    id INTEGER PRIMARY KEY,
    key BLOB NOT NULL,
    prev INTEGER NOT NULL,
    create_revision INTEGER NOT NULL,
    version INTEGER NOT NULL,
    expires_at REAL,
    value BLOB
) STRICT;
CREATE TABLE kv (key BLOB PRIMARY KEY, id INTEGER NOT NULL, expires_at REAL) STRICT, WITHOUT ROWID;
CREATE INDEX kv_by_expiry ON kv (expires_at) WHERE expires_at IS NOT NULL;
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO meta VALUES ('compacted', 0), ('swept', 0);
"""
_STAMP = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION};"


def open_writer(database: Path, *, max_size_bytes: int) -> sqlite3.Connection:
    """Open the one connection that writes and checkpoints, making the file if there is none.

    There must never be a second: SQLite 3.7.0 to 3.51.2 can lose committed pages when two connections write or
    checkpoint at the same time (the WAL-reset bug), and Debian 12 has 3.40.1.

    Raises:
        CorruptError: the file is not a keyspace.
        ProviderError: a newer Nanocloud wrote it.
        UnavailableError: the disk does not let us.
    """
    connection: sqlite3.Connection | None = None
    try:
        if not database.exists():
            # SQLite gives the journal files the mode of the database.
            os.close(os.open(database, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        connection = sqlite3.connect(database, isolation_level=None, check_same_thread=False)
        _check_format(connection, database)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # each commit is synced before it is acknowledged
        # Normally the writer checkpoints when idle; past what is reserved a checkpoint cannot wait for that.
        connection.execute(f"PRAGMA wal_autocheckpoint = {_JOURNAL_BYTES // _PAGE_BYTES}")
        connection.execute(f"PRAGMA journal_size_limit = {64 << 20}")
        connection.execute(f"PRAGMA max_page_count = {max_size_bytes // _PAGE_BYTES}")
        connection.execute("PRAGMA cache_size = -16384")
        # Debian's SQLite writes zeros over pages that become free, which is most of what a sweep costs. What is removed
        # from pages that stay in use is overwritten still. What must not be read on a disk is sealed before it comes.
        connection.execute("PRAGMA secure_delete = FAST")
        if _is_empty(connection):
            connection.executescript(f"BEGIN IMMEDIATE; {_TABLES} {_STAMP} COMMIT;")
            sync_folder(database.parent)
    except (sqlite3.Error, OSError) as exc:
        if connection is not None:
            connection.close()
        raise failure(exc, database) from exc
    except NanocloudError:
        assert connection is not None  # only _check_format raises these
        connection.close()
        raise
    return connection


def reserve_journal(database: Path) -> bool:
    """Let the journal grow by some zeros, which are no frames to SQLite; True once it is as large as it will be.

    A sync takes half the time where a file does not grow, for then the file system has nothing of its own to write.
    After each checkpoint the journal is written from its start. For the thread that writes, between transactions.
    """
    with database.with_name(f"{database.name}-wal").open("r+b", buffering=0) as journal:
        size_bytes = journal.seek(0, os.SEEK_END)
        missing_bytes = max(0, _JOURNAL_BYTES - size_bytes)
        try:
            journal.write(bytes(min(missing_bytes, _JOURNAL_STEP_BYTES)))
            os.fdatasync(journal.fileno())
        except OSError:  # no room, which the next transactions may not need
            journal.truncate(size_bytes)
            return True
    return missing_bytes <= _JOURNAL_STEP_BYTES


def open_reader(database: Path) -> sqlite3.Connection:
    """Open a connection that can only read; usable from any thread, by one at a time."""
    uri = f"{database.absolute().as_uri()}?mode=ro"
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)


def failure(exc: sqlite3.Error | OSError, database: Path) -> NanocloudError:
    """What a failed statement means to a caller."""
    if isinstance(exc, OSError):
        return UnavailableError(f"the keyspace file {database} cannot be used: {exc.strerror}")
    code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return CorruptError(
            f"the keyspace file {database} is damaged or no keyspace: {exc}", hint="restore it from a backup"
        )
    if code == sqlite3.SQLITE_FULL:
        return UnavailableError(
            f"the keyspace file {database} cannot grow: {exc}", hint="free space on its file system, then try again"
        )
    return UnavailableError(f"the keyspace file {database} failed: {exc} ({getattr(exc, 'sqlite_errorname', '?')})")


def _is_empty(connection: sqlite3.Connection) -> bool:
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    return bool(tables == 0)


def _check_format(connection: sqlite3.Connection, database: Path) -> None:
    if _is_empty(connection):
        return
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise CorruptError(f"{database} is a SQLite file but no keyspace")
    if version != SCHEMA_VERSION:
        raise ProviderError(
            f"the keyspace file {database} has format {version}; this Nanocloud knows format {SCHEMA_VERSION}",
            hint="install the Nanocloud version that wrote it, or a newer one",
        )
