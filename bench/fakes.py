"""A plugin of fake providers, for measures of the control plane alone: a thousand services fit any machine.

Installed as any plugin (see ``growth.py``) and chosen by the configuration. The fakes are the testkit's, without the
log of their calls, which would grow.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from nanocloud import hookimpl
from nanocloud.planning.workload import READY_COMMAND
from nanocloud.providers import CONTRACTS
from nanocloud.providers.image import ImageConfig
from nanocloud.testkit import FakeBinding, FakeImages, FakeNetwork, FakeRuntime, FakeVolume

if TYPE_CHECKING:
    from nanocloud.config import NodeConfig
    from nanocloud.providers.runtime import ContainerSpec

NANOCLOUD_CONTRACTS = {name: CONTRACTS[name] for name in ("runtime", "network", "volume", "image", "binding")}
STORES = 128
_STORE = {
    "password": ["!rand 32 alnum"],
    "env_PASSWORD": ["*password", "$password"],
    "port": ["5000"],
    "port_1": ["5000"],
    "volume_1": ["/data"],
}
_EXPORTS = {"options": ["host", "port"], "bindings": ["create_user"]}
_APP = {
    "user": ["app"],
    "password": ["!rand 24 alnum"],
    "env_DB_HOST": ["*database_host", "$database_host"],
    "env_DB_PASSWORD": ["*password", "$password"],
    "port_1": ["8080"],
    "volume_1": ["/data"],
}


class _Nothing(list[Any]):
    """A list that stays empty."""

    def append(self, _: object) -> None:
        pass


class _Runtime(FakeRuntime):
    async def create(self, spec: ContainerSpec) -> None:
        await super().create(spec)
        self.containers[spec.id].execs = _Nothing()


def _quiet(fake: Any) -> Any:
    fake.calls.log = _Nothing()
    return fake


@hookimpl
def nanocloud_runtime_providers() -> list[FakeRuntime]:
    return [_quiet(_Runtime())]


@hookimpl
def nanocloud_network_providers() -> list[FakeNetwork]:
    return [_quiet(FakeNetwork())]


@hookimpl
def nanocloud_volume_providers(config: NodeConfig) -> list[FakeVolume]:
    return [_quiet(FakeVolume(config.run_dir / "fake-volumes"))]


@hookimpl
def nanocloud_binding_providers() -> list[FakeBinding]:
    binding: FakeBinding = _quiet(FakeBinding())
    binding.runs = _Nothing()
    return [binding]


@hookimpl
def nanocloud_image_providers(config: NodeConfig) -> list[FakeImages]:
    """``store``, and ``app-<n>``, which selects the service ``store-<n>``, has an account made there and a volume."""
    images: FakeImages = _quiet(FakeImages())
    layer = config.state_dir / "fake-layer"
    script = layer / READY_COMMAND.lstrip("/")
    script.parent.mkdir(parents=True, exist_ok=True)
    script.touch()
    labels = {"io.nanocloud.options": json.dumps(_STORE), "io.nanocloud.exports": json.dumps(_EXPORTS)}
    images.add("store", ImageConfig(entrypoint=("/store",), labels=labels), layers=(layer,))
    for number in range(STORES):
        database = {f"database=&store-{number}": ["*database_host", "*database_port", "&create_user $user $password"]}
        labels = {"io.nanocloud.options": json.dumps(database | _APP)}
        images.add(f"app-{number}", ImageConfig(entrypoint=("/app",), labels=labels), layers=(layer,))
    return [images]
