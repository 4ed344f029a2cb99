"""Pushing to a real registry: open, with a password, with tokens; read back by skopeo and by ourselves."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest
import trio
import trustme

from nanocloud.errors import ImageError, NotFoundError
from nanocloud_dockyard.provider import Dockyard
from nanocloud_dockyard.push import Push
from nanocloud_dockyard.pushing import Shown
from nanocloud_dockyard.reference import parse_reference
from nanocloud_dockyard.retry import Backoff
from nanocloud_dockyard.settings import DockyardConfig, RegistrySettings
from nanocloud_dockyard.sources import Sources
from nanocloud_dockyard.upload import RegistryTarget

pytestmark = pytest.mark.skipif(
    not (shutil.which("docker-registry") and shutil.which("skopeo")), reason="needs docker-registry and skopeo"
)
PASSWORD = "pa55word"
HTPASSWD = "user:$2y$05$abcdefghijklmnopqrstuur.ZxEKly2fYX6K.hrvYXsoEaKgtr95a\n"


class Told:
    """What the push said of each blob."""

    def __init__(self):
        self.done, self.skipped, self.most = set(), set(), 0

    def __call__(self, *, blob, done_bytes, total_bytes, skipped):
        self.most = max(self.most, done_bytes)
        if done_bytes == total_bytes:
            (self.skipped if skipped else self.done).add(blob)


async def push(image, place, tmp_path, *, told=None, **config):
    place = parse_reference(place)
    async with Sources(DockyardConfig(**config), tmp_path / "images/layout") as sources:
        (source,) = sources.of(parse_reference(image))
        backoff = Backoff(attempts=3, first_seconds=0.01)
        target = RegistryTarget(sources.transport(), place, backoff)
        pushing = Push(source, target, progress=told or Told())
        return await pushing.run(parse_reference(image).digest, place.tag)


@pytest.fixture
def layout(new_image, new_tar, tmp_path):
    lower = bytes(new_tar().folder(b"etc").file(b"etc/conf", os.urandom(3 << 20)))
    upper = bytes(new_tar().folder(b"etc").file(b"etc/new", b"1"))
    image = new_image.of(lower, upper, Env=["A=b"])
    image.write_layout(tmp_path / "layout")
    return image


async def our_digest(reference, tmp_path, **config):
    """What our own client finds there, every layer fetched and unpacked where we may."""
    async with Dockyard(DockyardConfig(**config), tmp_path / "pulled", backoff=Backoff(first_seconds=0.01)) as dockyard:
        image = await dockyard.resolve(reference)
        if os.geteuid() == 0:
            assert len((await dockyard.ensure(image)).layers) == 2
        return image.digest


async def skopeo_digest(reference, *options):
    command = ["skopeo", "inspect", "--tls-verify=false", *options, "--format", "{{.Digest}}", f"docker://{reference}"]
    return (await trio.run_process(command, capture_stdout=True)).stdout.decode().strip()


async def test_what_is_pushed_is_what_others_pull(registry, tmp_path, layout):
    async with registry(tmp_path / "registry") as address:
        told = Told()
        digest = await push(
            f"oci:{tmp_path}/layout:latest", f"{address}/team/app:v1", tmp_path, told=told, plain_http=(address,)
        )
        assert await skopeo_digest(f"{address}/team/app:v1") == digest
        assert await our_digest(f"{address}/team/app:v1", tmp_path, plain_http=(address,)) == digest
        assert told.done == set(layout.blobs) - {digest}
        command = ["skopeo", "copy", "--quiet", "--src-tls-verify=false", f"docker://{address}/team/app:v1"]
        await trio.run_process([*command, f"oci:{tmp_path}/back:latest"])
    for blob, data in layout.blobs.items():
        assert (tmp_path / "back/blobs/sha256" / blob.removeprefix("sha256:")).read_bytes() == data


async def test_blobs_that_the_registry_has_are_not_sent_again(registry, tmp_path, layout):
    async with registry(tmp_path / "registry") as address:
        reference = f"oci:{tmp_path}/layout:latest"
        digest = await push(reference, f"{address}/app:v1", tmp_path, plain_http=(address,))
        told = Told()
        assert await push(reference, f"{address}/app:v2", tmp_path, told=told, plain_http=(address,)) == digest
        assert (told.done, told.skipped) == (set(), set(layout.blobs) - {digest})
        assert await skopeo_digest(f"{address}/app:v2") == digest


async def test_an_index_goes_with_every_image_it_names(registry, tmp_path, new_image, new_tar):
    descriptors = []
    for architecture in ("amd64", "arm64"):
        image = new_image.of(bytes(new_tar().file(architecture.encode())))
        image.configuration["architecture"] = architecture
        image.write_layout(tmp_path / "layout", None)
        descriptor = image.finish() | {"platform": {"os": "linux", "architecture": architecture}}
        descriptors.append({key: descriptor[key] for key in ("mediaType", "digest", "size", "platform")})
    index = new_image()
    index.manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": descriptors,
    }
    data = json.dumps(index.manifest).encode()
    descriptor = index.blob(data, index.manifest["mediaType"])
    (tmp_path / "layout/blobs/sha256" / descriptor["digest"].removeprefix("sha256:")).write_bytes(data)
    (tmp_path / "layout/index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [descriptor]}))
    async with registry(tmp_path / "registry") as address:
        digest = await push(f"oci:{tmp_path}/layout", f"{address}/app:all", tmp_path, plain_http=(address,))
        assert digest == descriptor["digest"]
        for wanted in descriptors:
            options = ("--override-arch", wanted["platform"]["architecture"])
            command = ["skopeo", "copy", "--quiet", "--src-tls-verify=false", *options]
            folder = tmp_path / wanted["platform"]["architecture"]
            await trio.run_process(
                [command[0], *options, *command[1:4], f"docker://{address}/app:all", f"oci:{folder}:x"]
            )
            (found,) = json.loads((folder / "index.json").read_bytes())["manifests"]
            assert found["digest"] == wanted["digest"]


async def test_an_image_goes_from_registry_to_registry(registry, tmp_path, layout):
    async with registry(tmp_path / "one") as one, registry(tmp_path / "two") as two:
        digest = await push(f"oci:{tmp_path}/layout:latest", f"{one}/app:v1", tmp_path, plain_http=(one,))
        copied = await push(f"{one}/app:v1", f"{two}/other:v1", tmp_path, plain_http=(one, two))
        assert copied == digest == await skopeo_digest(f"{two}/other:v1")


async def test_an_image_that_is_not_whole_is_not_tagged(registry, tmp_path, layout):
    lost = layout.manifest["layers"][0]["digest"].removeprefix("sha256:")
    (tmp_path / "layout/blobs/sha256" / lost).unlink()
    async with registry(tmp_path / "registry") as address:
        with pytest.raises(NotFoundError, match=lost):
            await push(f"oci:{tmp_path}/layout:latest", f"{address}/app:v1", tmp_path, plain_http=(address,))
        with pytest.raises(subprocess.CalledProcessError):
            await skopeo_digest(f"{address}/app:v1")


async def test_a_blob_that_was_changed_is_refused_by_the_registry(registry, tmp_path, layout):
    path = tmp_path / "layout/blobs/sha256" / layout.manifest["layers"][0]["digest"].removeprefix("sha256:")
    path.write_bytes(os.urandom(path.stat().st_size))
    async with registry(tmp_path / "registry") as address:
        with pytest.raises(ImageError, match="sha256:"):
            await push(f"oci:{tmp_path}/layout:latest", f"{address}/app:v1", tmp_path, plain_http=(address,))


# Cut on the way


@asynccontextmanager
async def cutting(address, cuts):
    """A relay to the registry that breaks the first ``cuts`` connections that carried a mebibyte either way."""
    host, _, port = address.partition(":")
    left = [cuts]

    async def handle(stream):
        upstream = await trio.open_tcp_stream(host, int(port))

        async def carry(source, sink, limit=None):
            carried = 0
            async for chunk in source:
                carried += len(chunk)
                if limit and left[0] and carried > limit:
                    left[0] -= 1
                    nursery.cancel_scope.cancel()
                    return
                await sink.send_all(chunk)
            nursery.cancel_scope.cancel()

        async with stream, upstream:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(carry, stream, upstream, 1 << 20)
                    nursery.start_soon(carry, upstream, stream, 1 << 20)
            except* (trio.BrokenResourceError, trio.ClosedResourceError):
                pass

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, handle, [listener]))
        yield f"127.0.0.1:{listener.socket.getsockname()[1]}", left
        nursery.cancel_scope.cancel()


async def test_a_push_that_is_cut_goes_on(registry, tmp_path, layout):
    async with registry(tmp_path / "registry") as address, cutting(address, 2) as (relay, left):
        digest = await push(f"oci:{tmp_path}/layout:latest", f"{relay}/app:v1", tmp_path, plain_http=(relay, address))
        assert left == [0]
        assert await skopeo_digest(f"{address}/app:v1") == digest


async def test_a_pull_that_is_cut_goes_on(registry, tmp_path, layout):
    async with registry(tmp_path / "registry") as address:
        digest = await push(f"oci:{tmp_path}/layout:latest", f"{address}/app:v1", tmp_path, plain_http=(address,))
        async with cutting(address, 2) as (relay, left):
            assert await our_digest(f"{relay}/app:v1", tmp_path, plain_http=(relay,)) == digest
            assert left == [0 if os.geteuid() == 0 else 2]


async def test_a_registry_that_cuts_every_time_is_given_up(registry, tmp_path, layout):
    async with registry(tmp_path / "registry") as address, cutting(address, 1000) as (relay, _):
        with trio.fail_after(30), pytest.raises(ImageError, match="tried 3 times"):
            await push(f"oci:{tmp_path}/layout:latest", f"{relay}/app:v1", tmp_path, plain_http=(relay, address))


# Who we are


def auth_file(folder, host, password=PASSWORD):
    path = folder / "auth.json"
    packed = base64.b64encode(f"user:{password}".encode()).decode()
    path.write_text(json.dumps({"auths": {host: {"auth": packed}}}))
    return path


async def test_a_password_lets_us_push(registry, tmp_path, layout):
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    auth = f"{{htpasswd: {{realm: test, path: {tmp_path}/htpasswd}}}}"
    reference = f"oci:{tmp_path}/layout:latest"
    async with registry(tmp_path / "registry", auth=auth) as address:
        with pytest.raises(ImageError, match="asks for credentials"):
            await push(reference, f"{address}/app:v1", tmp_path, plain_http=(address,))
        known = auth_file(tmp_path, address)
        digest = await push(reference, f"{address}/app:v1", tmp_path, plain_http=(address,), auth_file=known)
        assert await skopeo_digest(f"{address}/app:v1", "--authfile", str(known)) == digest
        assert await our_digest(f"{address}/app:v1", tmp_path, plain_http=(address,), auth_file=known) == digest
        wrong = auth_file(tmp_path, address, "guess")
        with pytest.raises(ImageError, match=r"access is refused \(401\)"):
            await push(reference, f"{address}/app:v1", tmp_path, plain_http=(address,), auth_file=wrong)


class TokenServer:
    """Signs tokens for what was asked, for whoever knows the password; remembers the scopes."""

    def __init__(self, authority, *, granted):
        self._leaf = authority.issue_cert("tokens.example")
        self._granted = granted
        self.scopes = []

    @asynccontextmanager
    async def serving(self):
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(trio.serve_listeners, self._handle, [listener]))
            yield f"127.0.0.1:{listener.socket.getsockname()[1]}"
            nursery.cancel_scope.cancel()

    async def _handle(self, stream):
        head = b""
        async with stream:
            while b"\r\n\r\n" not in head:
                head += await stream.receive_some()
            target = head.decode().split()[1]
            known = base64.b64encode(f"user:{PASSWORD}".encode()) in head
            body = json.dumps({"token": self._token(parse_qs(urlsplit(target).query))}).encode() if known else b""
            status = b"200 OK" if known else b"401 Unauthorized"
            head = b"HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % (status, len(body))
            await stream.send_all(head + body)

    def _token(self, query):
        (scope,) = query["scope"]
        self.scopes.append(scope)
        kind, name, actions = scope.split(":")
        access = {"type": kind, "name": name, "actions": [a for a in actions.split(",") if a in self._granted]}
        now = int(time.time())
        claims = {
            "iss": "tests",
            "sub": "user",
            "aud": query["service"][0],
            "nbf": now - 10,
            "exp": now + 300,
            "access": [access],
        }
        chain = self._leaf.cert_chain_pems[0].bytes().decode()
        packed = "".join(line for line in chain.splitlines() if "-----" not in line)
        key = self._leaf.private_key_pem.bytes()
        return jwt.encode(claims, key, algorithm="ES256", headers={"x5c": [packed]})


@pytest.mark.parametrize("granted", [("pull", "push"), ("pull",)])
async def test_a_token_for_pushing_is_asked_for(registry, tmp_path, layout, granted):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "tokens.pem")
    tokens = TokenServer(authority, granted=granted)
    async with tokens.serving() as realm:
        auth = (
            f'{{token: {{realm: "http://{realm}/token", service: reg, issuer: tests, '
            f"rootcertbundle: {tmp_path}/tokens.pem}}}}"
        )
        async with registry(tmp_path / "registry", auth=auth) as address:
            config = {"plain_http": (address, realm), "auth_file": auth_file(tmp_path, address)}
            pushing = partial(push, f"oci:{tmp_path}/layout:latest", f"{address}/team/app:v1", tmp_path, **config)
            if "push" not in granted:
                with pytest.raises(ImageError, match=r"access is refused \(401\)"):
                    await pushing()
                return
            digest = await pushing()
            assert tokens.scopes == ["repository:team/app:pull,push"]
            known = config["auth_file"]
            assert await skopeo_digest(f"{address}/team/app:v1", "--authfile", str(known)) == digest
            tokens.scopes.clear()
            assert await our_digest(f"{address}/team/app:v1", tmp_path, **config) == digest
            assert tokens.scopes == ["repository:team/app:pull"]


async def test_a_registry_with_tls_of_a_local_authority_is_pushed_to(registry, tmp_path, layout):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    leaf = authority.issue_cert("127.0.0.1")
    leaf.private_key_pem.write_to_path(tmp_path / "key.pem")
    leaf.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    tls = f"{{certificate: {tmp_path}/cert.pem, key: {tmp_path}/key.pem}}"
    async with registry(tmp_path / "registry", tls=tls) as address:
        registries = {address: RegistrySettings(ca_file=tmp_path / "ca.pem")}
        reference = f"oci:{tmp_path}/layout:latest"
        digest = await push(reference, f"{address}/app:v1", tmp_path, registries=registries)
        assert await skopeo_digest(f"{address}/app:v1") == digest
        with pytest.raises(ImageError, match="certificate is not trusted"):
            await push(reference, f"{address}/app:v1", tmp_path)


# The command


@pytest.mark.parametrize("words", [("oci:/nowhere", "mariadb"), ("oci:/nowhere", "reg.example/a@sha256:" + "a" * 64)])
def test_a_place_that_is_none_is_refused(words, tmp_path):
    done = command(tmp_path, *words)
    assert done.returncode == 2
    assert "is not REGISTRY/REPO[:TAG]" in done.stderr


@pytest.mark.parametrize(
    ("image", "says"),
    [
        ("redis", "service 'redis' has no image on this node\n  build it: nanocloud dockyard build redis"),
        ("rediss", "the catalogue has no service 'rediss'; did you mean redis"),
        ("oci:/nowhere", "oci:/nowhere has no oci-layout"),
        ("oci-archive:/nowhere.tar", "oci-archive:/nowhere.tar does not exist"),
        ("nginx:1", "name the registry too: docker.io/nginx:1"),
    ],
)
def test_an_image_that_is_not_there_is_named(image, says, tmp_path):
    done = command(tmp_path, image, "reg.example/a:1")
    assert done.returncode == 1
    assert says in done.stderr
    assert len(done.stderr.splitlines()) <= 2


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_sees_how_far_it_is_and_is_left_clean():
    shown = Shown(terminal := Terminal())
    a, b = "sha256:" + "a" * 64, "sha256:" + "b" * 64
    shown(blob=a, done_bytes=1_000_000, total_bytes=4_000_000, skipped=False)
    assert terminal.getvalue() == "\r\x1b[K1.0 MB of 4.0 MB"
    shown(blob=b, done_bytes=7, total_bytes=7, skipped=True)
    shown(blob=a, done_bytes=4_000_000, total_bytes=4_000_000, skipped=False)
    shown.close()
    lines = terminal.getvalue().rpartition("\r\x1b[K")[2].splitlines()
    assert lines == [f"{'b' * 12}: is there already, 0.0 MB", f"{'a' * 12}: pushed, 4.0 MB"]


async def test_the_command_says_what_it_did_and_no_password(registry, tmp_path, layout):
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    auth = f"{{htpasswd: {{realm: test, path: {tmp_path}/htpasswd}}}}"
    async with registry(tmp_path / "registry", auth=auth) as address:
        known = auth_file(tmp_path, address)
        (tmp_path / "config.toml").write_text(f'[dockyard]\nplain_http = ["{address}"]\nauth_file = "{known}"\n')
        words = (f"oci:{tmp_path}/layout:latest", f"{address}/app:v1")
        done = await trio.to_thread.run_sync(command, tmp_path, *words)
        digest = await skopeo_digest(f"{address}/app:v1", "--authfile", str(known))
    assert (done.returncode, done.stdout) == (0, f"{address}/app:v1@{digest}\n")
    assert sorted(line.partition(": ")[2].partition(",")[0] for line in done.stderr.splitlines()) == ["pushed"] * 3
    assert PASSWORD not in done.stdout + done.stderr


def command(tmp_path, *words):
    config = tmp_path / "config.toml"
    config.touch()
    return subprocess.run(
        [str(Path(sys.executable).with_name("nanocloud")), "dockyard", "push", *words],
        env={"PATH": os.environ["PATH"], "NANOCLOUD_CONFIG": str(config), "NANOCLOUD_STATE_DIR": str(tmp_path / "s")},
        capture_output=True,
        text=True,
    )
