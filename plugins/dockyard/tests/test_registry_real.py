"""A real registry (distribution's, as Debian packages it) on loopback, filled by skopeo."""

from __future__ import annotations

import os
import shutil

import pytest
import trio

from nanocloud.errors import ImageError, NotFoundError
from nanocloud_dockyard.provider import Dockyard
from nanocloud_dockyard.registry import Backoff
from nanocloud_dockyard.settings import DockyardConfig

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        not (shutil.which("docker-registry") and shutil.which("skopeo")), reason="needs docker-registry and skopeo"
    ),
]


async def push(layout, address, name):
    command = ["skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"oci:{layout}", f"docker://{address}/{name}"]
    await trio.run_process(command)


def dockyard(tmp_path, address, **config):
    config = DockyardConfig(plain_http=(address,), **config)
    return Dockyard(config, tmp_path / "images", backoff=Backoff(attempts=2, first_seconds=0.01))


@pytest.fixture
def layout(new_image, new_tar, tmp_path):
    lower = bytes(new_tar().folder(b"etc").file(b"etc/conf", os.urandom(3 << 20), mode=0o600, uid=33))
    upper = bytes(new_tar().folder(b"etc").file(b"etc/new", b"1"))
    new_image.of(lower, upper, Env=["A=b"]).write_layout(tmp_path / "layout")
    return f"{tmp_path / 'layout'}:latest"


async def test_an_image_is_pulled(registry, tmp_path, layout):
    async with registry(tmp_path / "registry") as address:
        await push(layout, address, "team/app:v1")
        async with dockyard(tmp_path, address) as provider:
            image = await provider.resolve(f"{address}/team/app:v1")
            assert image.config.environment == {"A": "b"}
            unpacked = await provider.ensure(image)
            conf = (unpacked.layers[0] / "etc/conf").stat()
            assert (conf.st_size, conf.st_uid, conf.st_mode & 0o777) == (3 << 20, 33, 0o600)
            with pytest.raises(NotFoundError, match="manifests/v2 does not exist"):
                await provider.resolve(f"{address}/team/app:v2")
            with pytest.raises(NotFoundError):
                await provider.resolve(f"{address}/team/none")
    async with dockyard(tmp_path, address) as provider:  # the registry is gone
        assert await provider.local(image.digest) == unpacked
        assert (await provider.resolve(f"{address}/team/app@{image.digest}")).digest == image.digest
        with pytest.raises(ImageError, match="tried 2 times"):
            await provider.resolve(f"{address}/team/app:v1")


async def test_a_tag_is_resolved_anew_each_time(registry, tmp_path, layout, new_image, new_tar):
    async with registry(tmp_path / "registry") as address, dockyard(tmp_path, address) as provider:
        await push(layout, address, "app:latest")
        before = await provider.resolve(f"{address}/app")
        new_image.of(bytes(new_tar().file(b"f"))).write_layout(tmp_path / "other")
        await push(f"{tmp_path / 'other'}:latest", address, "app:latest")
        assert (await provider.resolve(f"{address}/app")).digest != before.digest
        assert (await provider.resolve(f"{address}/app@{before.digest}")).digest == before.digest


async def test_a_service_comes_from_the_configured_registry(registry, tmp_path, layout):
    async with registry(tmp_path / "registry") as address:
        await push(layout, address, "dockyard/mariadb:latest")
        async with dockyard(tmp_path, address, registry=f"{address}/dockyard") as provider:
            image = await provider.resolve("mariadb")
            assert image.reference == "mariadb"
            assert len((await provider.ensure(image)).layers) == 2
            (entry,) = [entry for entry in await provider.catalog() if entry.service == "mariadb"]
            with pytest.raises(
                NotFoundError, match=f"'nginx' has no image on this node, nor has {address}/dockyard one"
            ):
                await provider.resolve("nginx")
            assert (entry.built, entry.reference) == (False, f"{address}/dockyard/mariadb:latest")


async def test_docker_manifests_are_understood(registry, tmp_path, layout):
    async with registry(tmp_path / "registry") as address, dockyard(tmp_path, address) as provider:
        command = ["skopeo", "copy", "--quiet", "--format", "v2s2", "--dest-tls-verify=false", f"oci:{layout}"]
        await trio.run_process([*command, f"docker://{address}/app:docker"])
        unpacked = await provider.ensure(await provider.resolve(f"{address}/app:docker"))
        assert len(unpacked.layers) == 2


async def test_a_blob_that_the_registry_spoiled_is_refused(registry, tmp_path, layout):
    async with registry(tmp_path / "registry") as address, dockyard(tmp_path, address) as provider:
        await push(layout, address, "app:v1")
        image = await provider.resolve(f"{address}/app:v1")
        blobs = (tmp_path / "registry/data/docker/registry/v2/blobs").glob("sha256/*/*/data")
        largest = max(blobs, key=lambda path: path.stat().st_size)
        with largest.open("r+b") as file:
            file.seek(1 << 20)
            file.write(b"spoiled")
        with pytest.raises(ImageError, match=r"layer sha256:"):
            await provider.ensure(image)
        with pytest.raises(NotFoundError):
            await provider.local(image.digest)
        assert not list((tmp_path / "images/layers").glob(".new-*"))


async def test_a_mirror_with_wrong_bytes_is_passed_over(registry, tmp_path, layout):
    from nanocloud_dockyard.settings import RegistrySettings

    async with registry(tmp_path / "good") as address, registry(tmp_path / "bad") as mirror:
        for host in (address, mirror):
            await push(layout, host, "app:v1")
        blobs = (tmp_path / "bad/data/docker/registry/v2/blobs").glob("sha256/*/*/data")
        largest = max(blobs, key=lambda path: path.stat().st_size)
        largest.write_bytes(os.urandom(largest.stat().st_size))
        config = DockyardConfig(plain_http=(address, mirror), registries={address: RegistrySettings(mirrors=(mirror,))})
        async with Dockyard(config, tmp_path / "images") as provider:
            unpacked = await provider.ensure(await provider.resolve(f"{address}/app:v1"))
        assert (unpacked.layers[0] / "etc/conf").stat().st_size == 3 << 20
