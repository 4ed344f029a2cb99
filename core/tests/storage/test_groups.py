"""Transactions that share a commit come out as if each had one of its own."""

from __future__ import annotations

import sqlite3

import hypothesis.strategies as st
from hypothesis import given

from nanocloud.providers.storage import (
    Committed,
    Record,
    RecordChange,
    RecordCheck,
    RecordDelete,
    RecordPut,
    Rejected,
    Transaction,
)
from nanocloud.storage import _apply, _schema
from nanocloud.storage._apply import Group, Newest

keys = st.sampled_from([b"a", b"b", b"c"])
operations = st.builds(RecordPut, keys, st.binary(max_size=2), st.none() | st.just(5.0)) | st.builds(RecordDelete, keys)
transactions = st.builds(
    Transaction,
    st.lists(st.builds(RecordCheck, keys, st.integers(0, 4)), max_size=1).map(tuple),
    st.lists(operations, max_size=3, unique_by=lambda operation: operation.key).map(tuple),
)
Outcome = tuple[Committed | Rejected, list[RecordChange]]


def run(groups: list[list[Transaction]]) -> tuple[list[Outcome], list[tuple[object, ...]]]:
    """What came of each transaction, and all that is stored then."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(_schema._TABLES)
    newest, revision, outcomes = Newest(), 0, []
    for transactions in groups:
        connection.execute("BEGIN IMMEDIATE")
        group = Group(connection, newest, revision)
        outcomes += [group.apply(transaction) for transaction in transactions]
        group.write()
        connection.execute("COMMIT")
        group.keep()
        revision = group.revision
    rows = [*_all(connection, "log"), *_all(connection, "kv")]
    connection.close()
    return outcomes, rows


def _all(connection: sqlite3.Connection, table: str) -> list[tuple[object, ...]]:
    return connection.execute(f"SELECT * FROM {table}").fetchall()


@given(st.lists(st.lists(transactions, min_size=1, max_size=5), max_size=5))
def test_a_group_is_as_its_transactions_one_by_one(groups: list[list[Transaction]]) -> None:
    assert run(groups) == run([[transaction] for group in groups for transaction in group])


def test_a_large_group_is_as_its_transactions_one_by_one() -> None:
    puts = [RecordPut(b"%d" % (number % 150), b"%d" % number, number) for number in range(300)]  # 300 rows, of 150 keys
    transactions = [Transaction((), (put,)) for put in puts]
    assert run([transactions]) == run([[transaction] for transaction in transactions])


def test_the_states_that_are_kept_are_bounded() -> None:
    newest = Newest()
    for number in range(1000):
        newest.put(b"%d" % number, (number, Record(b"", bytes(10_000), 1, 1, 1, None)))
        newest.put(b"gone", (number, None))
    kept = sum(newest.get(b"%d" % number) is not None for number in range(1000))
    assert 150 < kept < 210
    assert newest.get(b"999") is not None
    assert newest.get(b"gone") is None
    newest.put(b"999", (1, Record(b"", b"", 1, 1, 1, None)))
    assert newest._size_bytes < _apply._NEWEST_BYTES
