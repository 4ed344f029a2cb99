"""What the tests share: a few words for transactions, and a model to compare with."""

from __future__ import annotations

from nanocloud.providers.storage import (
    Committed,
    RecordChange,
    RecordDelete,
    RecordPut,
    StorageProvider,
    Transaction,
)


def puts(*pairs: tuple[bytes, bytes]) -> Transaction:
    return Transaction((), tuple(RecordPut(key, value) for key, value in pairs))


async def put(storage: StorageProvider, key: bytes, value: bytes = b"") -> int:
    """The transaction's revision."""
    return await commit(storage, RecordPut(key, value))


async def commit(storage: StorageProvider, *operations: RecordPut | RecordDelete) -> int:
    outcome = await storage.transact(Transaction((), operations))
    assert isinstance(outcome, Committed)
    return outcome.revision


async def history(storage: StorageProvider, *, after: int = 0) -> list[RecordChange]:
    found: list[RecordChange] = []
    while (page := await storage.changes(b"", None, after=after, limit=256)).changes:
        found, after = [*found, *page.changes], page.through
    return found
