"""A storage provider for Nanocloud: the keyspace in LMDB."""
