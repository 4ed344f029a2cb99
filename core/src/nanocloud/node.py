"""The composition root: opens the providers, starts the workers, serves the API; one nursery holds it all.

Here, and nowhere else, parts meet. Everything is built once, in the order of the layers, and closed in reverse.
"""

from __future__ import annotations

import resource
import signal
import ssl
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import structlog
import trio
from starlette.routing import BaseRoute

from nanocloud import __version__, builtin
from nanocloud.ambient import wall_clock
from nanocloud.apiserver.app import build_app
from nanocloud.apiserver.catalogue import Catalogue
from nanocloud.apiserver.context import ApiContext
from nanocloud.apiserver.credentials import NodeAuthenticator, NodeAuthorizer
from nanocloud.apiserver.exchange import Exchange
from nanocloud.apiserver.plans import Plans
from nanocloud.apiserver.server import serve
from nanocloud.concurrency import first_error
from nanocloud.context import NodeContext
from nanocloud.controllers.bundles import BundleController
from nanocloud.controllers.image_collection import ImageCollector
from nanocloud.controllers.parts import ControllerParts
from nanocloud.controllers.planner import Planner
from nanocloud.controllers.profiles import ProfileStore
from nanocloud.controllers.transfer import ProfileTransfer
from nanocloud.controllers.uninstall import Uninstaller
from nanocloud.errors import PluginError
from nanocloud.extension import Admission, Controller
from nanocloud.files import private_folder
from nanocloud.identity.assets import SecureAssets
from nanocloud.identity.tokens import BearerTokens, TokenStore
from nanocloud.images import ImageSources
from nanocloud.keyspace import Keyspace
from nanocloud.kubelet.access import PodAccess
from nanocloud.kubelet.addresses import AddressesWorker
from nanocloud.kubelet.bindings import BindingsWorker
from nanocloud.kubelet.claims import ClaimsWorker
from nanocloud.kubelet.kubelet import Kubelet
from nanocloud.kubelet.parts import KubeletParts
from nanocloud.models.builtin import builtin_registry
from nanocloud.models.kinds import KindRegistry, ResourceKind, fault_of
from nanocloud.objects import EventRecorder, NamespaceController, ObjectStore
from nanocloud.observability import metrics
from nanocloud.output import printable
from nanocloud.planning.expander import expander
from nanocloud.plugins import Offer, PluginHost, PluginState
from nanocloud.plugins.offers import unfilled
from nanocloud.plugins.scrape import PluginMetrics
from nanocloud.providers.binding import BindingProvider
from nanocloud.providers.image import ImageProvider
from nanocloud.providers.macro import MacroProvider
from nanocloud.providers.network import NetworkProvider
from nanocloud.providers.runtime import RuntimeProvider
from nanocloud.providers.storage import StorageProvider
from nanocloud.providers.volume import VolumeProvider
from nanocloud.secrets import load_envelope
from nanocloud.workers import keep_running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from typing import Any

    from nanocloud.config import NodeConfig
    from nanocloud.providers.base import Provider

log = structlog.get_logger("node")

_OPEN_FILES = 16_384


def plugin_host(config: NodeConfig) -> PluginHost:
    return PluginHost(allowed=config.allow_plugins, disabled=config.disable_plugins, builtin=builtin, config=config)


@attrs.define(kw_only=True)
class Node:
    """An open node: its parts, and the workers that are to run."""

    config: NodeConfig
    host: PluginHost
    assets: SecureAssets
    context: NodeContext
    profiles: ProfileStore
    controllers: ControllerParts
    kubelet: KubeletParts | None
    unfit: PluginError | None
    """Why no service can run here: a plugin is missing. The API works all the same."""


@asynccontextmanager
async def open_node(config: NodeConfig, host: PluginHost) -> AsyncIterator[Node]:
    """Open storage, keyspace and providers.

    Raises:
        PluginError: a choice of provider that is unknown or ambiguous, or no storage.
        LockedError: another server has the state folder.
        NotFoundError: the node was not set up.
        ProviderError: the host lacks something that a provider needs.
    """
    assets = SecureAssets(config.secure_assets)
    authority, envelope = assets.authority(), load_envelope(assets.node_key)
    async with AsyncExitStack() as stack:
        storage = await _enter(stack, host.select("storage", StorageProvider, config))
        keyspace = await stack.enter_async_context(Keyspace.open(storage))
        registry = builtin_registry()
        for offer in host.call("nanocloud_api_resources", ResourceKind, config=config):
            if fault := fault_of(offer.value):
                host.blame(offer.plugin, f"nanocloud_api_resources gave {fault}")
            else:
                _add_kind(registry, offer)
        store = ObjectStore(keyspace, registry, seal=envelope.seal, unseal=envelope.unseal)
        await store.ensure_namespaces()
        events = EventRecorder(store)
        binding = await _enter(stack, host.select("binding", BindingProvider, config))
        images = await _open_images(stack, host, config)
        macros = host.named("nanocloud_macro_providers", MacroProvider, config=config)
        expand = expander([await _enter(stack, offer.value) for offer in macros.values()])
        profiles = ProfileStore(keyspace, envelope)
        unfit = _missing_roles(host, config)
        controllers = ControllerParts(
            store=store,
            events=events,
            profiles=profiles,
            planner=Planner(store=store, profiles=profiles, images=images, expand=expand),
            uninstaller=Uninstaller(
                store=store,
                profiles=profiles,
                events=events,
                binding_provider=binding.name,
                has_kubelet=unfit is None,
            ),
            authority=authority,
            envelope=envelope,
            binding_provider=binding.name,
            unfit=unfit,
        )
        kubelet = None
        if unfit is None:
            kubelet = KubeletParts(
                store=store,
                events=events,
                images=images,
                runtime=await _enter(stack, host.select("runtime", RuntimeProvider, config)),
                network=await _enter(stack, host.select("network", NetworkProvider, config)),
                volume=await _enter(stack, host.select("volume", VolumeProvider, config)),
                binding=binding,
                logs=private_folder(config.state_dir / "logs"),
                clock=wall_clock,
            )
        yield Node(
            config=config,
            host=host,
            assets=assets,
            context=NodeContext(config=config, keyspace=keyspace, store=store, events=events, images=images),
            profiles=profiles,
            controllers=controllers,
            kubelet=kubelet,
            unfit=unfit,
        )


async def _enter(stack: AsyncExitStack, provider: Any) -> Any:
    """Open a provider and close it with the node."""
    entered: Provider = provider
    await stack.enter_async_context(entered)
    return provider


def _add_kind(registry: KindRegistry, offer: Offer) -> None:
    try:
        registry.add(offer.value)
    except PluginError as exc:
        raise PluginError(
            f"{exc}, this time by {offer.plugin} ({offer.distribution})",
            hint="disable it in node.disable_plugins or uninstall it",
        ) from exc


async def _open_images(stack: AsyncExitStack, host: PluginHost, config: NodeConfig) -> ImageSources:
    offers = host.named("nanocloud_image_providers", ImageProvider, config=config)
    providers = [await _enter(stack, offer.value) for offer in offers.values()]
    return ImageSources(providers, missing=None if providers else host.missing("image"))


def _missing_roles(host: PluginHost, config: NodeConfig) -> PluginError | None:
    """What to say where a role that running services needs has no provider at all."""
    role = next(unfilled(host, config), None)
    return None if role is None else host.missing(role)


async def run_node(
    node: Node, *, task_status: trio.TaskStatus[Sequence[tuple[str, int]]] = trio.TASK_STATUS_IGNORED
) -> None:
    """Run the workers and serve the API until cancelled; reports the addresses once they are bound."""
    workers: list[Controller] = [BundleController(node.controllers), NamespaceController(node.context.store)]
    if node.kubelet is not None:
        workers += [Kubelet(node.kubelet), ClaimsWorker(node.kubelet), AddressesWorker(node.kubelet)]
        workers.append(BindingsWorker(node.kubelet))
        workers.append(
            ImageCollector(
                store=node.context.store,
                profiles=node.profiles,
                images=node.context.images,
                runtime=node.kubelet.runtime,
                keep_seconds=node.config.keep_unused_images_seconds,
            )
        )
    elif node.unfit is not None:
        log.warning("services cannot run on this node", reason=str(node.unfit), hint=node.unfit.hint)
    offers = node.host.named("nanocloud_controllers", Controller, context=node.context)
    workers += [offer.value for offer in offers.values()]
    async with trio.open_nursery() as nursery:
        for worker in workers:
            nursery.start_soon(keep_running, worker)
        addresses = await nursery.start(_serve, node)
        task_status.started(addresses)


async def _serve(node: Node, *, task_status: trio.TaskStatus[Sequence[tuple[str, int]]]) -> None:
    keyspace = node.context.keyspace
    bearers = BearerTokens(node.assets.token_key.read_bytes())
    exchange = Exchange(authority=node.controllers.authority, grants=TokenStore(keyspace), bearers=bearers)
    plans = Plans(planner=node.controllers.planner, store=node.context.store, unfit=node.unfit)

    context = ApiContext(
        store=node.context.store,
        authenticator=NodeAuthenticator(bearers),
        authorizer=NodeAuthorizer(),
        pods=PodAccess(node.kubelet) if node.kubelet is not None else None,
        transfer=ProfileTransfer(
            store=node.context.store,
            profiles=node.profiles,
            events=node.controllers.events,
            envelope=node.controllers.envelope,
        ),
        routes=(
            *exchange.routes(),
            *plans.routes(),
            *Catalogue(images=node.context.images).routes(),
            metrics.route(keyspace, PluginMetrics(node.host, node.context)),
            *(offer.value for offer in node.host.call("nanocloud_routes", BaseRoute, context=node.context)),
        ),
        admission=tuple(
            offer.value
            for _, offer in sorted(node.host.named("nanocloud_admission", Admission, config=node.config).items())
        ),
    )
    await serve(build_app(context), listen=node.config.listen, ssl_context=tls_context(node), task_status=task_status)


def tls_context(node: Node) -> ssl.SSLContext:
    """TLS 1.2 and newer; client certificates of the node's CA, required where the configuration says so."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=node.assets.ca_certificate)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED if node.config.require_client_certificate else ssl.CERT_OPTIONAL
    context.load_cert_chain(node.assets.certificate("server"), node.assets.key("server"))
    return context


async def serve_until_signal(config: NodeConfig) -> None:
    """The whole program of ``nanocloud server``: until SIGINT or SIGTERM. Containers are left running."""
    private_folder(config.run_dir)
    _allow_open_files()
    try:
        async with open_node(config, plugin_host(config)) as node, trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_on_signal, nursery.cancel_scope)
            addresses = await nursery.start(run_node, node)
            shown = ", ".join(f"{host}:{port}" for host, port in addresses)
            log.info("nanocloud is serving", address=shown, version=__version__)
            _tell_of_plugins(node.host)
    except BaseExceptionGroup as group:
        raise first_error(group) from group


def _allow_open_files() -> None:
    """A process gets 1,024 unasked, for the sake of ``select``: connections of the API alone may be as many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _tell_of_plugins(host: PluginHost) -> None:
    """Those that are not in use although nobody said so, and names in the configuration that mean none."""
    for note in host.notes:
        log.warning(printable(note))
    for info in host.plugins:
        if info.state not in (PluginState.ACTIVE, PluginState.DISABLED):
            log.warning(
                f"a plugin is {info.state.value}",
                plugin=printable(info.name),
                distribution=printable(info.distribution),
                reason=info.reason,
                hint=f"see: nanocloud plugin show {printable(info.name)}",
            )


async def _cancel_on_signal(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for number in signals:
            log.info("stopping", signal=signal.Signals(number).name)
            scope.cancel()
            return
