"""What the random stories install: services that share databases, depend on each other in chains, want one port.

The databases keep their accounts with their volume, as real ones do: whoever installs one anew finds it empty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from nanocloud.providers.volume import VolumeId
from nanocloud.testkit.accounts import EXPORTS, FakeAccounts

if TYPE_CHECKING:
    from pathlib import Path

    from nanocloud.providers.binding import BindingCall
    from nanocloud.testkit.planning import Settings
    from nanocloud.testkit.simulation.machine import Simulation

_DATABASE: Settings = {
    "root_password": ["!rand 16 alnum"],
    "env_ROOT_PASSWORD": ["*root_password", "$root_password"],
    "port": ["3306"],
    "volume_1": ["/var/lib/data"],
    "volume_size_1": ["1Gi"],
}
_ACCOUNT: Settings = {
    "database_name": ["!bundle"],
    "database_user": ["!bundle"],
    "database_password": ["!rand 16 alnum"],
    "env_DB": ["*database_host", "$database_host $database_user"],
    "env_DB_PASSWORD": ["*database_password", "$database_password"],
}
_CREATE = "&create_user $database_name $database_user $database_password"


_KILLED = 137


@attrs.frozen(kw_only=True)
class Service:
    settings: Settings
    exports: Settings | None = None
    choices: dict[str, tuple[str, ...]] = attrs.field(factory=dict)
    """Options that users give, with the values they take."""


SERVICES = {
    "mariadb": Service(settings=_DATABASE, exports=EXPORTS, choices={"root_password": ("one", "two")}),
    "postgres": Service(settings=_DATABASE, exports=EXPORTS),
    "cache": Service(
        settings={"port": ["6379"], "title": ["cache"], "env_TITLE": ["$title"]}, exports={"options": ["host", "port"]}
    ),
    "site": Service(
        settings={
            "database=&mariadb": ["*database_host", _CREATE],
            "database=&postgres": ["*database_host", _CREATE],
            **_ACCOUNT,
            "title": ["site"],
            "env_TITLE": ["$title"],
            "port": ["80"],
            "volume_1": ["/var/www"],
        },
        exports={"options": ["host", "port"]},
        choices={
            "title": ("old", "new"),
            "database": ("mariadb", "postgres"),
            "database_password": ("open", "sesame"),
            "database_user": ("web", "www"),
        },
    ),
    "shop": Service(
        settings={
            "database=&mariadb": ["*database_host", _CREATE],
            **_ACCOUNT,
            "?cache=&cache": ["*cache_host"],
            "?env_CACHE": ["*cache_host", "$cache_host"],
        },
        choices={"cache": ("cache",), "database_password": ("open", "sesame"), "database_user": ("web", "shop")},
    ),
    "front": Service(
        settings={
            "upstream=&site": ["*upstream_host"],
            "env_UPSTREAM": ["*upstream_host", "$upstream_host"],
            "port_1": ["8080->80"],
        },
    ),
}


class Databases:
    """A handler for FakeBinding: each database's accounts, as long as its volume lives."""

    def __init__(self, machine: Simulation) -> None:
        self._machine = machine
        self._accounts: dict[Path, FakeAccounts] = {}

    def __call__(self, call: BindingCall) -> int:
        container = self._machine.runtime.containers.get(call.container)
        return _KILLED if container is None else self.of(container.spec.hostname)(call)

    def of(self, database: str) -> FakeAccounts:
        """The accounts of the bundle of that name."""
        volume = self._machine.folder / "volumes" / VolumeId(f"default.volume-1-{database}-0")
        if not volume.exists():
            return FakeAccounts()
        seen = volume / "accounts"
        if volume not in self._accounts or not seen.exists():
            seen.touch()
            self._accounts[volume] = FakeAccounts()
        return self._accounts[volume]

    def kill_after(self, steps: int | None) -> None:
        """Kill the command that takes the ``steps``-th step from now on, in any database; None: none."""
        for accounts in self._accounts.values():
            accounts.stop_at = None if steps is None else accounts.steps + steps


def stock(machine: Simulation) -> Databases:
    """Fill the machine's catalogue, and let its databases answer binding commands."""
    for name, service in SERVICES.items():
        machine.add_image(name, service.settings, exports=service.exports, ready_script=name == "mariadb")
    databases = Databases(machine)
    machine.fake_binding.handler = databases
    return databases
