"""``nanocloud setup`` and ``nanocloud reset``: making a machine a node, and taking every trace off it again."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import attrs

from nanocloud.concurrency import unwrapped
from nanocloud.errors import LockedError, NanocloudError
from nanocloud.files import private_folder
from nanocloud.identity.assets import ADMIN_GROUP, SecureAssets
from nanocloud.identity.tokens import Grant, TokenStore
from nanocloud.keyspace import Keyspace
from nanocloud.node import plugin_host
from nanocloud.plugins import ROLES
from nanocloud.plugins.offers import NEEDED_BY_SERVICES, PROVIDERS, unfilled
from nanocloud.providers.base import Removable
from nanocloud.providers.network import NetworkProvider
from nanocloud.providers.storage import StorageProvider

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nanocloud.config import NodeConfig
    from nanocloud.plugins import PluginHost

ADMIN = Grant(user="admin", groups=[ADMIN_GROUP])


@attrs.frozen(kw_only=True)
class SetupReport:
    made: list[str]
    token: str | None
    """A single-use token of the administrator; None while a server runs: ask it with ``nanocloud token``."""
    missing: list[str]
    """Roles that no plugin fills, in sentences."""


async def set_up(
    config: NodeConfig, *, server_names: Sequence[str] = (), repair: bool = False, token: bool = True
) -> SetupReport:
    """Prepare folders, keys, certificates and the network; safe to repeat, also while a server runs.

    Raises:
        NanocloudError: what is lacking, and how to get it.
    """
    private_folder(config.state_dir)
    private_folder(config.run_dir)
    made = SecureAssets(config.secure_assets).prepare(server_names=server_names, repair=repair)
    host = plugin_host(config)
    try:
        storage = host.select("storage", StorageProvider, config)
        with unwrapped():
            async with storage, Keyspace.open(storage) as keyspace:
                lacking = list(unfilled(host, config))
                if "network" not in lacking:
                    async with host.select("network", NetworkProvider, config):
                        made.append("network")
                secret = await TokenStore(keyspace).create(ADMIN) if token else None
        return SetupReport(made=made, token=secret, missing=[str(host.missing(role)) for role in lacking])
    except LockedError:
        # A server runs on this folder, so the network stands; certificates it reads when it starts again.
        return SetupReport(made=made, token=None, missing=[])


async def take_off(config: NodeConfig, tell: Callable[[str], None]) -> None:
    """Remove containers, networks, volumes with their data, images, keyspace, keys. Repeats safely.

    Raises:
        LockedError: a server runs on the folder.
    """
    host = plugin_host(config)
    if config.state_dir.exists():  # whichever storage it is: only it knows whether a server has it
        async with host.select("storage", StorageProvider, config):
            await _purge(host, config, tell)
    else:
        await _purge(host, config, tell)
    for folder in (config.run_dir, config.state_dir):
        if folder.exists():
            shutil.rmtree(folder)
            tell(f"removed {folder}")


async def _purge(host: PluginHost, config: NodeConfig, tell: Callable[[str], None]) -> None:
    failed = []
    for role in NEEDED_BY_SERVICES:  # containers first: they hold networks and volumes
        for offer in host.named(ROLES[role].hook, PROVIDERS[role], config=config).values():
            provider: object = offer.value
            if isinstance(provider, Removable):
                try:
                    await provider.purge()
                    tell(f"removed what the {role} plugin {offer.plugin} made")
                except NanocloudError as exc:
                    failed.append(f"{offer.plugin}: {exc}")
    if failed:
        raise NanocloudError(f"some traces are left: {'; '.join(failed)}", hint="mend that and run it again")


async def redeem_locally(config: NodeConfig, token: str, request: bytes) -> tuple[bytes, bytes]:
    """Exchange a single-use token for a client certificate while no server runs; returns certificate and CA, PEM.

    Raises:
        UnauthorizedError: the token is not good.
        LockedError: a server runs: ask it.
    """
    authority = SecureAssets(config.secure_assets).authority()
    authority.sign_request(request, "check", [])  # a bad request must not use the token up
    storage = plugin_host(config).select("storage", StorageProvider, config)
    with unwrapped():
        async with storage, Keyspace.open(storage) as keyspace:
            grant = await TokenStore(keyspace).redeem(token)
    return authority.sign_request(request, grant.user, grant.groups), authority.certificate
