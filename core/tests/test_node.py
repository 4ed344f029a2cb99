"""The node as a whole: opened with the plugins that there are, serving over TLS, stopped by a signal."""

from __future__ import annotations

import os
import resource
import signal
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx2
import pytest
import trio
from structlog.testing import capture_logs

from nanocloud import builtin, hookimpl
from nanocloud import node as node_module
from nanocloud.concurrency import unwrapped
from nanocloud.config import NodeConfig
from nanocloud.errors import LockedError, NotFoundError, PluginError, ProviderError
from nanocloud.identity.assets import SecureAssets
from nanocloud.models.builtin import builtin_registry
from nanocloud.models.bundle import BUNDLE
from nanocloud.models.kinds import ResourceKind
from nanocloud.models.meta import name_of
from nanocloud.node import Node, open_node, run_node, serve_until_signal
from nanocloud.objects import WatchType
from nanocloud.plugins import PluginHost, PluginState
from nanocloud.providers.image import ImageConfig
from nanocloud.testkit import FakeImages, FakeNetwork, FakeRuntime, FakeVolume
from nanocloud.testkit.planning import MARIADB, labels_of

BUNDLES = "/apis/nanocloud.io/v1/namespaces/default/bundles"


@pytest.fixture
def config(tmp_path: Path) -> NodeConfig:
    config = NodeConfig(state_dir=tmp_path / "state", run_dir=tmp_path / "run", listen="127.0.0.1:0")
    SecureAssets(config.secure_assets).prepare()
    return config


class Fakes:
    """The providers of a whole node, as one plugin."""

    def __init__(self, folder: Path) -> None:
        self.runtime, self.network, self.images = FakeRuntime(), FakeNetwork(), FakeImages()
        self.volume = FakeVolume(folder / "volumes")
        self.images.add("mariadb", ImageConfig(entrypoint=("mariadbd",), labels=labels_of(MARIADB)))

    def module(self) -> ModuleType:
        module = ModuleType("fakes")
        offers = {"runtime": self.runtime, "network": self.network, "volume": self.volume, "image": self.images}
        for role, provider in offers.items():

            def offer(provider: object = provider) -> list[object]:
                return [provider]

            setattr(module, f"nanocloud_{role}_providers", hookimpl(_without_arguments(offer)))
        module.NANOCLOUD_CONTRACTS = dict.fromkeys((*offers, "extension"), "1.0")  # type: ignore[attr-defined]
        return module


def _without_arguments(offer: Any) -> Any:
    def hook() -> Any:
        return offer()

    return hook


class Entry:
    """An entry point whose module is at hand."""

    name, value, dist = "fakes", __name__, None

    def __init__(self, module: ModuleType) -> None:
        self._module = module

    def load(self) -> ModuleType:
        return self._module


def host(*modules: ModuleType) -> PluginHost:
    return PluginHost(builtin=builtin, installed=[Entry(module) for module in modules])  # type: ignore[misc]


@pytest.fixture
def fakes(tmp_path: Path) -> Fakes:
    return Fakes(tmp_path)


def client_for(config: NodeConfig, address: tuple[str, int], *, certificate: bool = True) -> httpx2.AsyncClient:
    assets = SecureAssets(config.secure_assets)
    context = ssl.create_default_context(cafile=assets.ca_certificate)
    if certificate:
        context.load_cert_chain(assets.certificate("admin"), assets.key("admin"))
    return httpx2.AsyncClient(base_url=f"https://127.0.0.1:{address[1]}", verify=context, trust_env=False)


@asynccontextmanager
async def served(node: Node) -> AsyncIterator[httpx2.AsyncClient]:
    async with trio.open_nursery() as nursery:
        (address,) = await nursery.start(run_node, node)
        with trio.fail_after(30):
            async with client_for(node.config, address) as client:
                yield client
        nursery.cancel_scope.cancel()


async def wait_for(node: Node, name: str, phase: str) -> dict[str, Any]:
    async with node.context.store.watch(BUNDLE, after=0) as events:
        async for event in events:
            if name_of(event.object) == name and (event.object.get("status") or {}).get("phase") == phase:
                return event.object
    raise AssertionError("the watch ended")


async def test_a_service_is_installed_over_the_api_and_runs(config: NodeConfig, fakes: Fakes) -> None:
    async with open_node(config, host(fakes.module())) as node, served(node) as client:
        bundle = {"metadata": {"name": "mariadb"}, "spec": {"service": "mariadb"}}
        answer = await client.post(BUNDLES, json=bundle)
        assert answer.status_code == 201
        running = await wait_for(node, "mariadb", "Running")
        assert running["status"]["options"]["root_password"] == "********"
        assert len(fakes.runtime.running) == 1
        pods = (await client.get("/api/v1/namespaces/default/pods")).json()["items"]
        assert [pod["metadata"]["name"] for pod in pods] == ["mariadb-0"]
        metrics = (await client.get("/metrics")).text
        assert 'nanocloud_reconcile_seconds_count{queue="bundles"}' in metrics
        assert "nanocloud_keyspace_revision" in metrics
    assert len(fakes.runtime.running) == 1, "containers outlive the server"


async def test_core_alone_serves_the_api_and_says_what_is_missing(config: NodeConfig) -> None:
    async with open_node(config, host()) as node:
        assert node.kubelet is None
        assert str(node.unfit) == "no runtime provider is installed"
        with capture_logs() as logs:
            async with served(node) as client:
                assert (await client.get("/version")).status_code == 200
                await client.post(BUNDLES, json={"metadata": {"name": "mariadb"}, "spec": {"service": "mariadb"}})
                failed = await wait_for(node, "mariadb", "Failed")
                await client.delete(f"{BUNDLES}/mariadb")
                async with node.context.store.watch(BUNDLE, after=0) as events:
                    with trio.fail_after(30):
                        while (await anext(events)).type is not WatchType.DELETED:
                            pass
        assert failed["status"]["reason"] == "PluginMissing"
        assert "pip install nanocloud-runtime-crun" in failed["status"]["message"]
        assert "services cannot run on this node" in {entry["event"] for entry in logs}


async def test_plugins_bring_resources_controllers_routes_admission_and_metrics(
    config: NodeConfig, fakes: Fakes
) -> None:
    from prometheus_client.core import GaugeMetricFamily
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    from nanocloud.errors import ForbiddenError

    started = trio.Event()

    class Worker:
        name = "watcher"

        async def run(self) -> None:
            started.set()
            await trio.sleep_forever()

    class NoRedis:
        name = "no-redis"

        def admit(self, operation: str, kind: Any, obj: dict[str, Any], old: Any, requester: Any) -> dict[str, Any]:
            if kind.kind == "Bundle" and obj["spec"]["service"] == "redis":
                raise ForbiddenError(f"no redis for {requester.name}")
            return obj

    async def hello(request: Request) -> PlainTextResponse:
        return PlainTextResponse(f"hello {request.user.name}")

    module = fakes.module()
    extra: dict[str, Any] = {
        "nanocloud_controllers": lambda: [Worker()],
        "nanocloud_routes": lambda: [Route("/hello", hello)],
        "nanocloud_admission": lambda: [NoRedis()],
        "nanocloud_metrics": lambda: [GaugeMetricFamily("acme_answers", "Answers.", value=42)],
    }
    for name, answer in extra.items():
        setattr(module, name, hookimpl(_without_arguments(answer)))
    async with open_node(config, host(module)) as node, served(node) as client:
        await started.wait()
        assert (await client.get("/hello")).text == "hello admin"
        assert "acme_answers 42.0" in (await client.get("/metrics")).text
        refused = await client.post(BUNDLES, json={"metadata": {"name": "x"}, "spec": {"service": "redis"}})
        assert refused.status_code == 403
        assert "no redis for admin" in refused.text


async def test_plugins_that_answer_nonsense_do_not_keep_the_node_from_serving(config: NodeConfig) -> None:
    module = ModuleType("nonsense")
    module.NANOCLOUD_CONTRACTS = {"extension": "1.0"}  # type: ignore[attr-defined]
    for name in ("api_resources", "controllers", "routes", "admission", "metrics"):
        setattr(module, f"nanocloud_{name}", hookimpl(_without_arguments(lambda: ["nonsense"])))
    async with open_node(config, host(module)) as node, served(node) as client:
        assert (await client.get("/metrics")).status_code == 200
        assert (await client.post(BUNDLES, json={"metadata": {"name": "x"}, "spec": {"service": "x"}})).is_success
        assert [info.state for info in node.host.plugins] == [PluginState.ACTIVE, PluginState.BROKEN]


async def test_handlers_of_plugins_that_misbehave_end_their_request_alone(config: NodeConfig) -> None:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    class Forgetful:
        name = "forgetful"

        def admit(self, operation: str, kind: Any, obj: Any, old: Any, requester: Any) -> None:
            return None

    async def leave(request: Request) -> Response:
        raise SystemExit

    module = ModuleType("bad")
    module.NANOCLOUD_CONTRACTS = {"extension": "1.0"}  # type: ignore[attr-defined]
    module.nanocloud_admission = hookimpl(_without_arguments(lambda: [Forgetful()]))  # type: ignore[attr-defined]
    module.nanocloud_routes = hookimpl(_without_arguments(lambda: [Route("/leave", leave)]))  # type: ignore[attr-defined]
    async with open_node(config, host(module)) as node, served(node) as client:
        with capture_logs():
            assert (await client.get("/leave")).status_code == 500
        refused = await client.post(BUNDLES, json={"metadata": {"name": "x"}, "spec": {"service": "x"}})
        assert refused.status_code == 500
        assert refused.json()["message"] == "the admission check 'forgetful' returned NoneType and no object"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"group": "Acme Inc"}, "the group 'Acme Inc', which is no RFC 1123 subdomain"),
        ({"plural": "Widgets"}, "the kind 'Widget' with the name 'Widgets', which is no RFC 1123 label"),
        ({"kind": "a widget"}, "the kind 'a widget', which is no name of a type"),
        ({"schema": None}, "a kind that cannot be read: AttributeError: "),
        ({"plural": ["widgets"]}, "a kind that cannot be read: TypeError: "),
    ],
)
async def test_a_kind_that_cannot_be_served_breaks_its_plugin_alone(
    config: NodeConfig, changes: dict[str, Any], told: str
) -> None:
    good: dict[str, Any] = {"group": "acme.example", "plural": "widgets", "singular": "widget", "kind": "Widget"}
    kind = ResourceKind(**(good | {"schema": {"type": "object"}} | changes))
    module = ModuleType("kinds")
    module.NANOCLOUD_CONTRACTS = {"extension": "1.0"}  # type: ignore[attr-defined]
    module.nanocloud_api_resources = hookimpl(_without_arguments(lambda: [kind]))  # type: ignore[attr-defined]
    async with open_node(config, host(module)) as node:
        assert node.host.plugins[1].state is PluginState.BROKEN
        assert node.host.plugins[1].reason.startswith(f"nanocloud_api_resources gave {told}")
        assert kind not in node.context.store.registry


async def test_a_kind_that_is_there_already_is_an_error_that_names_the_plugin(config: NodeConfig) -> None:
    module = ModuleType("kinds")
    module.NANOCLOUD_CONTRACTS = {"extension": "1.0"}  # type: ignore[attr-defined]
    taken = next(iter(builtin_registry()))
    module.nanocloud_api_resources = hookimpl(_without_arguments(lambda: [taken]))  # type: ignore[attr-defined]
    with pytest.raises(PluginError) as caught, unwrapped():
        async with open_node(config, host(module)):
            pass
    assert str(caught.value).endswith("is registered twice, this time by fakes (unknown)")


async def test_a_node_that_was_not_set_up_says_so(tmp_path: Path) -> None:
    config = NodeConfig(state_dir=tmp_path / "state", run_dir=tmp_path / "run")
    with pytest.raises(NotFoundError) as caught:
        async with open_node(config, host()):
            pass
    assert caught.value.hint == "run: nanocloud setup"


async def test_two_servers_on_one_folder_are_refused(config: NodeConfig) -> None:
    async with open_node(config, host()):
        with pytest.raises(LockedError), unwrapped():
            async with open_node(config, host()):
                pass


async def test_an_unknown_choice_of_provider_is_an_error(config: NodeConfig, fakes: Fakes) -> None:
    import attrs

    wrong = attrs.evolve(config, runtime="podman")
    with pytest.raises(PluginError, match=r"node\.runtime is 'podman', which no plugin offers"), unwrapped():
        async with open_node(wrong, host(fakes.module())):
            pass


async def test_a_provider_that_cannot_open_closes_those_before_it(config: NodeConfig, fakes: Fakes) -> None:
    @contextmanager
    def refuse() -> Iterator[None]:
        raise ProviderError("no nftables on this host")

    fakes.network.lifespan = refuse  # type: ignore[assignment, method-assign]
    with pytest.raises(ProviderError, match="no nftables"), unwrapped():
        async with open_node(config, host(fakes.module())):
            pass
    async with open_node(config, host()):
        pass  # the storage was let go


async def test_a_client_certificate_can_be_required(config: NodeConfig) -> None:
    import attrs

    strict = attrs.evolve(config, require_client_certificate=True)
    async with open_node(strict, host()) as node, served(node) as client:
        assert (await client.get("/healthz")).text == "ok"
        async with client_for(strict, ("", client.base_url.port or 0), certificate=False) as stranger:
            with pytest.raises(httpx2.HTTPError):
                await stranger.get("/healthz")


async def test_the_log_names_plugins_that_are_not_in_use_though_nobody_said_so(
    config: NodeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = Entry(ModuleType("old"))
    old.name = "ol\x1b[2Jd"
    made = PluginHost(builtin=builtin, disabled=["gone"], installed=[old])  # type: ignore[list-item]
    monkeypatch.setattr(node_module, "plugin_host", lambda _: made)
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_until_signal, config)
            while not any(entry["event"] == "a plugin is incompatible" for entry in logs):
                await trio.testing.wait_all_tasks_blocked(0.01)
            nursery.cancel_scope.cancel()
    told = {entry["event"]: entry for entry in logs}
    assert "node.disable_plugins names 'gone', which is not installed" in told
    assert told["a plugin is incompatible"]["plugin"] == "ol?[2Jd"
    assert told["a plugin is incompatible"]["hint"] == "see: nanocloud plugin show ol?[2Jd"
    assert told["a plugin is incompatible"]["reason"].startswith("states no NANOCLOUD_CONTRACTS")


@asynccontextmanager
async def serving(
    config: NodeConfig, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[list[Any], trio.CancelScope]]:
    """The whole program, once it serves, and until it has ended: what it logs, and the scope that it runs in."""
    monkeypatch.setattr(node_module, "plugin_host", lambda _: host())
    with capture_logs() as logs, trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_until_signal, config)
            while not any(entry["event"] == "nanocloud is serving" for entry in logs):
                await trio.testing.wait_all_tasks_blocked(0.01)
            yield logs, nursery.cancel_scope


@pytest.fixture
def few_files() -> Iterator[int]:
    """The limit of open files that a process gets unasked, for the time of a test; the hard one is given."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, before[1]))
    yield before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_the_server_allows_itself_more_files_than_it_takes_connections(
    config: NodeConfig, monkeypatch: pytest.MonkeyPatch, few_files: int
) -> None:
    async with serving(config, monkeypatch) as (_, scope):
        scope.cancel()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert (soft, hard) == (min(16_384, few_files) if few_files > 0 else 16_384, few_files)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_server(
    config: NodeConfig, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    async with serving(config, monkeypatch) as (logs, _):
        os.kill(os.getpid(), number)
    assert logs[-1] == {"event": "stopping", "signal": number.name, "log_level": "info"}
