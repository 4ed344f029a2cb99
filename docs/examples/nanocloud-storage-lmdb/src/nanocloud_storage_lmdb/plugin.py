"""Registers what this package provides and does nothing else."""

from nanocloud import hookimpl
from nanocloud.config import NodeConfig

from nanocloud_storage_lmdb.storage import LmdbStorage

NANOCLOUD_CONTRACTS = {"storage": "1.0"}


@hookimpl
def nanocloud_storage_providers(config: NodeConfig) -> list[LmdbStorage]:
    return [LmdbStorage(config.state_dir / "storage-lmdb")]
