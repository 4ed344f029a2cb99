"""The node's revisioned key-value store: transactions, watches, leases and compaction on any storage provider."""

from nanocloud.keyspace.entries import Change, ChangeKind, Compare, Delete, Entry, Page, Put
from nanocloud.keyspace.index import Index
from nanocloud.keyspace.keys import Key
from nanocloud.keyspace.keyspace import Keyspace
from nanocloud.keyspace.watch import Watcher

__all__ = ["Change", "ChangeKind", "Compare", "Delete", "Entry", "Index", "Key", "Keyspace", "Page", "Put", "Watcher"]
