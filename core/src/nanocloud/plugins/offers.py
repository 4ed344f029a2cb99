"""What each plugin offers, and which of it a node of this configuration would use. For people who look."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

import attrs

from nanocloud.errors import PluginError
from nanocloud.plugins.host import ROLES, PluginConflictError, PluginHost
from nanocloud.providers.binding import BindingProvider
from nanocloud.providers.image import ImageProvider
from nanocloud.providers.macro import MacroProvider
from nanocloud.providers.network import NetworkProvider
from nanocloud.providers.runtime import RuntimeProvider
from nanocloud.providers.storage import StorageProvider
from nanocloud.providers.volume import VolumeProvider

if TYPE_CHECKING:
    from nanocloud.config import NodeConfig
    from nanocloud.plugins.host import Offer
    from nanocloud.providers.base import Provider

PROVIDERS: Mapping[str, type[Provider]] = MappingProxyType(
    {
        "storage": StorageProvider,
        "runtime": RuntimeProvider,
        "network": NetworkProvider,
        "volume": VolumeProvider,
        "image": ImageProvider,
        "macro": MacroProvider,
        "binding": BindingProvider,
    }
)
ALL_ARE_USED = frozenset({"image", "macro"})
NEEDED_BY_SERVICES = ("runtime", "network", "volume", "image")
"""Without one of each no service can run."""


@attrs.frozen(kw_only=True)
class OfferedProvider:
    contract: str
    name: str
    chosen: bool
    """Whether a node of this configuration uses it."""


@attrs.frozen(kw_only=True)
class Offers:
    by_plugin: Mapping[str, Sequence[OfferedProvider]]
    problems: Sequence[str]
    """Why nothing can be chosen for a contract although something is offered, one sentence each."""


def offers(host: PluginHost, config: NodeConfig) -> Offers:
    """Ask every plugin for its providers; plugins that answer badly are broken afterwards."""
    found: dict[str, list[OfferedProvider]] = defaultdict(list)
    problems: list[str] = []
    for contract, kind in PROVIDERS.items():
        try:
            table = host.named(f"nanocloud_{contract}_providers", kind, config=config)
            used = _used(host, contract, config, table)
        except PluginConflictError as exc:
            problems.append(f"{exc}; {exc.hint}")
            continue
        except PluginError as exc:
            problems.append(f"{exc}; {exc.hint}")
            used = set()
        for name, offer in table.items():
            found[offer.plugin].append(OfferedProvider(contract=contract, name=name, chosen=name in used))
    return Offers(by_plugin=dict(found), problems=problems)


def unfilled(host: PluginHost, config: NodeConfig) -> Iterator[str]:
    """Contracts that running services needs and that no plugin fills.

    Raises:
        PluginConflictError: two plugins offer one name.
    """
    for contract in NEEDED_BY_SERVICES:
        if not host.named(ROLES[contract].hook, PROVIDERS[contract], config=config):
            yield contract


def _used(host: PluginHost, contract: str, config: NodeConfig, table: Mapping[str, Offer]) -> set[str]:
    """Raises PluginError: several and none is chosen, or the chosen one is none of them."""
    if contract in ALL_ARE_USED:
        return set(table)
    if not table and getattr(config, ROLES[contract].name) is None:
        return set()  # an installation without a runtime is no problem until something is to run
    provider = host.select(contract, PROVIDERS[contract], config)
    return {name for name, offer in table.items() if offer.value is provider}
