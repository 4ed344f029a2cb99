"""Registers the container runtime with the node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nanocloud import hookimpl
from nanocloud_runtime_crun.runtime import CrunConfig, CrunRuntime

if TYPE_CHECKING:
    from nanocloud.config import NodeConfig

NANOCLOUD_CONTRACTS = {"runtime": "1.0"}


@hookimpl
def nanocloud_runtime_providers(config: NodeConfig) -> list[CrunRuntime]:
    section = config.section("runtime-crun", CrunConfig)
    return [CrunRuntime(section, state_dir=config.state_dir, run_dir=config.run_dir)]
