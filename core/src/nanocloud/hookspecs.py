"""Every hook: the contract between core and plugins.

Hooks register, providers work. A hook is synchronous, cheap and typed; it is called at most once while a process
starts and must not touch the host, the network or the keyspace. What takes time happens in a provider's async
methods. A hook that raises, or is not done after ten seconds, breaks its plugin and nothing else. Unless a hook says
otherwise, the answers of all plugins are joined, and two answers of one name are an error that names both
distributions. Names are RFC 1123 labels.

A hook that takes the configuration is called once more in a child process, before, so that one that crashes takes no
node with it.

A plugin module states ``NANOCLOUD_CONTRACTS = {"runtime": "1.0"}``, the version of each contract that it was built
for (``nanocloud.providers.CONTRACTS`` has those of this node); a version that does not fit is refused by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import Metric
    from starlette.routing import BaseRoute

    from nanocloud.config import NodeConfig
    from nanocloud.context import NodeContext
    from nanocloud.extension import Admission, CommandGroup, Controller
    from nanocloud.models.kinds import ResourceKind
    from nanocloud.providers.binding import BindingProvider
    from nanocloud.providers.image import ImageProvider
    from nanocloud.providers.macro import MacroProvider
    from nanocloud.providers.network import NetworkProvider
    from nanocloud.providers.runtime import RuntimeProvider
    from nanocloud.providers.storage import StorageProvider
    from nanocloud.providers.volume import VolumeProvider

hookspec = pluggy.HookspecMarker("nanocloud")


@hookspec
def nanocloud_storage_providers(config: NodeConfig) -> Sequence[StorageProvider]:
    """Offer places where the keyspace can persist.

    Called once while the node starts, before anything else is built. ``node.storage`` selects one by name; core
    brings ``sqlite``, which is taken unless the configuration says otherwise.
    """
    return ()


@hookspec
def nanocloud_runtime_providers(config: NodeConfig) -> Sequence[RuntimeProvider]:
    """Offer the container runtimes that this plugin implements.

    Called once while the node starts, before any worker runs. ``node.runtime`` selects one; it may be absent where
    only one is installed.

    Args:
        config: the validated node configuration; read-only.

    Returns:
        Providers that are not open yet: building one must not touch the host.
    """
    return ()


@hookspec
def nanocloud_network_providers(config: NodeConfig) -> Sequence[NetworkProvider]:
    """Offer pod networks. Called and chosen as the runtimes are, by ``node.network``."""
    return ()


@hookspec
def nanocloud_volume_providers(config: NodeConfig) -> Sequence[VolumeProvider]:
    """Offer volumes. Called and chosen as the runtimes are, by ``node.volume``."""
    return ()


@hookspec
def nanocloud_image_providers(config: NodeConfig) -> Sequence[ImageProvider]:
    """Offer image sources and catalogues. Called as the runtimes are.

    All are used: a reference is asked of each in the order of their names until one does not answer NotFoundError.
    """
    return ()


@hookspec
def nanocloud_macro_providers(config: NodeConfig) -> Sequence[MacroProvider]:
    """Offer macros for image labels. All are used; two providers of one macro are an error that names both."""
    return ()


@hookspec
def nanocloud_binding_providers(config: NodeConfig) -> Sequence[BindingProvider]:
    """Offer ways to run binding commands. ``node.binding`` selects one; core brings ``exec``, taken by default."""
    return ()


@hookspec
def nanocloud_admission(config: NodeConfig) -> Sequence[Admission]:
    """Offer checks of objects before they are stored.

    Called once while the API server starts. On every create and update all checks run in the order of their names;
    each returns the object, changed or not, or raises InvalidError or ForbiddenError, which ends the request.
    """
    return ()


@hookspec
def nanocloud_api_resources(config: NodeConfig) -> Sequence[ResourceKind]:
    """Offer kinds of objects. Called once while the node starts; discovery, OpenAPI, storage and watch follow."""
    return ()


@hookspec
def nanocloud_controllers(context: NodeContext) -> Sequence[Controller]:
    """Offer workers that reconcile objects.

    Called once, when the keyspace and all providers are open. Each runs in the node's nursery; one that crashes is
    logged and started again with back-off. Names must differ.
    """
    return ()


@hookspec
def nanocloud_routes(context: NodeContext) -> Sequence[BaseRoute]:
    """Offer HTTP routes beside the generic ones. Called once while the API server starts.

    Requests arrive authenticated: ``request.user`` is the caller. They are asked after core's own routes and before the
    paths of kinds.
    """
    return ()


@hookspec
def nanocloud_commands() -> Sequence[CommandGroup]:
    """Offer command groups (``nanocloud <name> ...``).

    Called when the command line needs a name that core does not have, or prints its help, then in a child process: keep
    the module that implements the hook free of heavy imports. A name that core has stays core's.
    """
    return ()


@hookspec
def nanocloud_metrics(context: NodeContext) -> Iterable[Metric]:
    """Yield Prometheus metric families. Called in a worker thread on every scrape of ``/metrics``: read, never wait.

    A plugin whose hook is not done after ten seconds is not asked again.
    """
    return ()
