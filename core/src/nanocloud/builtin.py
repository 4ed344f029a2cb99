"""What core itself offers, registered like any plugin's: SQLite storage, macros, the binding provider, admission."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nanocloud import hookimpl
from nanocloud.bindings import BindingConfig, ExecBinding
from nanocloud.macros import BuiltinMacros
from nanocloud.planning.volumes import FixedVolumes
from nanocloud.providers import CONTRACTS
from nanocloud.storage import SqliteStorage

if TYPE_CHECKING:
    from nanocloud.config import NodeConfig

NANOCLOUD_CONTRACTS = {name: CONTRACTS[name] for name in ("storage", "macro", "binding", "extension")}


@hookimpl
def nanocloud_storage_providers(config: NodeConfig) -> list[SqliteStorage]:
    return [SqliteStorage(config.state_dir / "keyspace")]


@hookimpl
def nanocloud_macro_providers() -> list[BuiltinMacros]:
    return [BuiltinMacros()]


@hookimpl
def nanocloud_binding_providers(config: NodeConfig) -> list[ExecBinding]:
    return [ExecBinding(config=config.section("binding-exec", BindingConfig))]


@hookimpl
def nanocloud_admission() -> list[FixedVolumes]:
    return [FixedVolumes()]
