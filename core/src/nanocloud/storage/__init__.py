"""The built-in storage: one SQLite file in a folder of its own."""

from nanocloud.storage.sqlite import SqliteStorage

__all__ = ["SqliteStorage"]
