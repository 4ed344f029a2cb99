"""Making a machine a node, and taking it off again."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import pytest
from cryptography import x509

from nanocloud import builtin, hookimpl
from nanocloud import setup as nanocloud_setup
from nanocloud.config import NodeConfig
from nanocloud.errors import InvalidError, LockedError, NanocloudError, ProviderError, UnauthorizedError
from nanocloud.identity.authority import new_request
from nanocloud.identity.tokens import Grant, TokenStore
from nanocloud.keyspace import Keyspace
from nanocloud.plugins import PluginHost
from nanocloud.providers.volume import VolumeId, VolumeSpec
from nanocloud.setup import redeem_locally, set_up, take_off
from nanocloud.storage import SqliteStorage
from nanocloud.testkit import FakeNetwork, FakeRuntime, FakeStorage, FakeVolume
from nanocloud.testkit.disk import FakeDisk
from nanocloud.testkit.specs import container_spec, sandbox_spec


@pytest.fixture
def config(tmp_path: Path) -> NodeConfig:
    return NodeConfig(state_dir=tmp_path / "state", run_dir=tmp_path / "run")


class Entry:
    name, value, dist = "fakes", __name__, None

    def __init__(self, module: ModuleType) -> None:
        self._module = module

    def load(self) -> ModuleType:
        return self._module


def _hook(provider: object) -> Any:
    def hook() -> list[object]:
        return [provider]

    return hookimpl(hook)


@pytest.fixture
def providers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Fakes of the machine, one plugin's; remove one and nobody fills the role."""
    made: dict[str, Any] = {
        "runtime": FakeRuntime(),
        "network": FakeNetwork(),
        "volume": FakeVolume(tmp_path / "volumes"),
    }

    def host(_: NodeConfig) -> PluginHost:
        module = ModuleType("fakes")
        module.NANOCLOUD_CONTRACTS = dict.fromkeys(made, "1.0")  # type: ignore[attr-defined]
        for role, provider in made.items():
            setattr(module, f"nanocloud_{role}_providers", _hook(provider))
        return PluginHost(builtin=builtin, installed=[Entry(module)])  # type: ignore[list-item]

    monkeypatch.setattr(nanocloud_setup, "plugin_host", host)
    return made


async def test_setup_prepares_everything_and_prints_a_token_that_works(
    config: NodeConfig, providers: dict[str, Any]
) -> None:
    report = await set_up(config, server_names=["cloud.example"])
    assert report.made[0] == "certificate authority"
    assert report.made[-1] == "network"
    assert report.missing == ["no image provider is installed"]
    for folder in (config.state_dir, config.run_dir, config.secure_assets):
        assert folder.stat().st_mode & 0o777 == 0o700
    assert report.token is not None
    _, request = new_request("me")
    certificate, authority = await redeem_locally(config, report.token, request)
    subject = x509.load_pem_x509_certificate(certificate).subject.rfc4514_string()
    assert subject == "CN=admin,O=system:masters"
    assert b"BEGIN CERTIFICATE" in authority
    with pytest.raises(UnauthorizedError):
        await redeem_locally(config, report.token, request)


async def test_setup_repeats_safely(config: NodeConfig, providers: dict[str, Any]) -> None:
    await set_up(config)
    key = (config.secure_assets / "node.key").read_bytes()
    report = await set_up(config, repair=True, token=False)
    assert report.made == ["server certificate", "admin certificate", "network"]
    assert report.token is None
    assert (config.secure_assets / "node.key").read_bytes() == key


async def test_a_bad_request_does_not_use_the_token_up(config: NodeConfig, providers: dict[str, Any]) -> None:
    token = (await set_up(config)).token or ""
    with pytest.raises(InvalidError):
        await redeem_locally(config, token, b"nonsense")
    await redeem_locally(config, token, new_request("me")[1])


async def test_setup_while_a_server_runs_mends_files_and_leaves_the_rest(
    config: NodeConfig, providers: dict[str, Any]
) -> None:
    await set_up(config)
    (config.secure_assets / "admin.crt").unlink()
    async with SqliteStorage(config.state_dir / "keyspace") as storage, Keyspace.open(storage) as keyspace:
        report = await set_up(config)
        assert (report.made, report.token) == (["admin certificate"], None)
        token = await TokenStore(keyspace).create(Grant(user="me", groups=[]))
        with pytest.raises(LockedError):
            await redeem_locally(config, token, new_request("me")[1])
        assert (await TokenStore(keyspace).redeem(token)).user == "me"


async def test_a_network_that_cannot_be_made_is_told_as_itself(
    config: NodeConfig, providers: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise ProviderError("no nftables on this host")

    monkeypatch.setattr(providers["network"], "lifespan", refuse)
    with pytest.raises(ProviderError, match="no nftables"):
        await set_up(config)


async def test_core_alone_says_every_plugin_that_is_missing(config: NodeConfig, providers: dict[str, Any]) -> None:
    providers.clear()
    report = await set_up(config)
    assert [text.split()[1] for text in report.missing] == ["runtime", "network", "volume", "image"]


async def test_reset_takes_every_trace_off(config: NodeConfig, providers: dict[str, Any], tmp_path: Path) -> None:
    await set_up(config)
    spec = container_spec("c", tmp_path)
    await providers["runtime"].create(spec)
    await providers["network"].attach(sandbox_spec("s"))
    async with providers["volume"]:
        await providers["volume"].create(VolumeSpec(id=VolumeId("v"), size_bytes=1))
    told: list[str] = []
    await take_off(config, told.append)
    assert providers["runtime"].containers == {}
    assert await providers["network"].list() == []
    assert await providers["volume"].list() == []
    assert not config.state_dir.exists()
    assert not config.run_dir.exists()
    assert len(told) == 5
    await take_off(config, told.append)


async def test_a_reset_that_fails_keeps_the_state_to_try_again(config: NodeConfig, providers: dict[str, Any]) -> None:
    await set_up(config)
    providers["network"].calls.fail("purge", ProviderError("the bridge is busy"))
    with pytest.raises(NanocloudError, match="some traces are left: fakes: the bridge is busy"):
        await take_off(config, lambda _: None)
    assert config.secure_assets.exists()
    await take_off(config, lambda _: None)
    assert not config.state_dir.exists()


async def test_a_reset_while_a_server_runs_is_refused(config: NodeConfig, providers: dict[str, Any]) -> None:
    await set_up(config)
    async with SqliteStorage(config.state_dir / "keyspace"):
        with pytest.raises(LockedError):
            await take_off(config, lambda _: None)
    assert config.secure_assets.exists()


async def test_a_reset_is_refused_whichever_storage_the_server_has(
    config: NodeConfig, providers: dict[str, Any]
) -> None:
    config, disk = attrs.evolve(config, storage="fake"), FakeDisk()
    providers["storage"] = FakeStorage(disk)
    await set_up(config)
    async with FakeStorage(disk):
        with pytest.raises(LockedError):
            await take_off(config, lambda _: None)
    assert config.secure_assets.exists()
    await take_off(config, lambda _: None)
    assert not config.state_dir.exists()
