"""Registers the runtime and does nothing else: a hook touches neither host nor network."""

from nanocloud import hookimpl
from nanocloud.config import NodeConfig
from nanocloud_runtime_runc.runtime import RuncRuntime, Settings

NANOCLOUD_CONTRACTS = {"runtime": "1.0"}
NAME = "runtime-runc"
"""Of the entry point, hence of the table in the configuration and of the folders."""


@hookimpl
def nanocloud_runtime_providers(config: NodeConfig) -> list[RuncRuntime]:
    settings = config.section(NAME, Settings)
    return [RuncRuntime(settings, state_dir=config.state_dir / NAME, run_dir=config.run_dir / NAME)]
