"""Tars, images and layout folders for tests, written byte by byte so that they can be as wrong as a test wants."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from nanocloud_dockyard.provider import Dockyard
from nanocloud_dockyard.settings import DockyardConfig


def header(
    name: bytes,
    *,
    kind: bytes = b"0",
    mode: int = 0o644,
    uid: int = os.getuid(),
    gid: int = os.getgid(),
    size: int | bytes = 0,
    mtime: int = 1_600_000_000,
    link: bytes = b"",
    device: tuple[int, int] = (0, 0),
    magic: bytes = b"ustar\x0000",
    prefix: bytes = b"",
    checksum: bytes | None = None,
) -> bytes:
    """One 512-byte header; numbers that do not fit are given as bytes."""
    sized = size if isinstance(size, bytes) else b"%011o\0" % size
    block = bytearray(
        name.ljust(100, b"\0")
        + b"%07o\0%07o\0%07o\0" % (mode, uid, gid)
        + sized.ljust(12, b"\0")
        + b"%011o\0" % mtime
        + b" " * 8
        + kind
        + link.ljust(100, b"\0")
        + magic.ljust(8, b"\0")
        + bytes(64)
        + b"%07o\0%07o\0" % device
        + prefix.ljust(167, b"\0")
    )
    assert len(block) == 512
    block[148:156] = checksum if checksum is not None else b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def pax_record(key: bytes, value: bytes) -> bytes:
    body = b" " + key + b"=" + value + b"\n"
    length = len(body)
    while len(str(length)) + len(body) != length:
        length = len(str(length)) + len(body)
    return str(length).encode() + body


def pax(records: dict[bytes, bytes] | bytes, *, kind: bytes = b"x") -> bytes:
    """A pax extension header for the entry that follows."""
    data = records if isinstance(records, bytes) else b"".join(pax_record(*item) for item in records.items())
    return header(b"pax", kind=kind, size=len(data)) + padded(data)


class Tar:
    """Writes entries; ``bytes()`` of it is the archive."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def __bytes__(self) -> bytes:
        return b"".join(self._parts) + bytes(1024)

    def raw(self, data: bytes) -> Tar:
        self._parts.append(data)
        return self

    def pax(self, records: dict[bytes, bytes] | bytes, *, kind: bytes = b"x") -> Tar:
        return self.raw(pax(records, kind=kind))

    def file(self, name: bytes, data: bytes = b"", **fields: Any) -> Tar:
        return self.raw(header(name, size=fields.pop("size", len(data)), **fields) + padded(data))

    def folder(self, name: bytes, **fields: Any) -> Tar:
        return self.raw(header(name, kind=b"5", **{"mode": 0o755, **fields}))

    def symlink(self, name: bytes, link: bytes, **fields: Any) -> Tar:
        return self.raw(header(name, kind=b"2", link=link, **{"mode": 0o777, **fields}))

    def hard_link(self, name: bytes, link: bytes, **fields: Any) -> Tar:
        return self.raw(header(name, kind=b"1", link=link, **fields))

    def device(self, name: bytes, device: tuple[int, int], *, kind: bytes = b"3", **fields: Any) -> Tar:
        return self.raw(header(name, kind=kind, device=device, **fields))

    def fifo(self, name: bytes, **fields: Any) -> Tar:
        return self.raw(header(name, kind=b"6", **fields))


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@attrs.define(kw_only=True)
class TestImage:
    """An image in memory, to be bent before it is written."""

    __test__ = False

    blobs: dict[str, bytes] = attrs.field(factory=dict)
    manifest: dict[str, Any] = attrs.field(factory=dict)
    configuration: dict[str, Any] = attrs.field(factory=dict)

    @classmethod
    def of(cls, *tars: bytes, compress: Any = None, suffix: str = "+gzip", **config: Any) -> TestImage:
        image = cls()
        image.configuration = {
            "os": "linux",
            "architecture": "amd64",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [digest_of(tar) for tar in tars]},
        }
        image.manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "layers": [
                image.blob((compress or _gzip)(tar), f"application/vnd.oci.image.layer.v1.tar{suffix}") for tar in tars
            ],
        }
        return image

    def blob(self, data: bytes, media_type: str) -> dict[str, Any]:
        """Add a blob; its descriptor."""
        self.blobs[digest_of(data)] = data
        return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}

    def finish(self) -> dict[str, Any]:
        """Add configuration and manifest; the manifest's descriptor."""
        configuration = json.dumps(self.configuration).encode()
        self.manifest["config"] = self.blob(configuration, "application/vnd.oci.image.config.v1+json")
        return self.blob(json.dumps(self.manifest).encode(), self.manifest["mediaType"])

    def write_layout(self, folder: Path, tag: str | None = "latest") -> Path:
        """Add to the layout folder, or make it."""
        descriptor = self.finish()
        (folder / "blobs/sha256").mkdir(parents=True, exist_ok=True)
        for digest, data in self.blobs.items():
            (folder / "blobs/sha256" / digest.removeprefix("sha256:")).write_bytes(data)
        (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        index = folder / "index.json"
        manifests = json.loads(index.read_bytes())["manifests"] if index.exists() else []
        if tag:
            descriptor["annotations"] = {"org.opencontainers.image.ref.name": tag}
        index.write_text(json.dumps({"schemaVersion": 2, "manifests": [*manifests, descriptor]}))
        return folder


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, 1, mtime=0)


@pytest.fixture
def tar() -> Tar:
    """An empty archive to write entries into."""
    return Tar()


@pytest.fixture
def new_tar() -> type[Tar]:
    return Tar


@pytest.fixture
def new_image() -> type[TestImage]:
    return TestImage


@pytest.fixture
def tree() -> Callable[[Path], dict[str, str]]:
    """Everything below a folder as ``{path: kind letter}``."""
    letters = {0o4: "d", 0o10: "f", 0o12: "l", 0o2: "c", 0o6: "b", 0o1: "p"}

    def read(root: Path) -> dict[str, str]:
        return {str(path.relative_to(root)): letters[path.lstat().st_mode >> 12] for path in sorted(root.rglob("*"))}

    return read


@pytest.fixture
def registry() -> Any:
    """Makes a real registry (distribution's, as Debian packages it) on loopback."""
    return _registry


@asynccontextmanager
async def _registry(folder: Path, *, auth: str = "", tls: str = "") -> AsyncIterator[str]:
    """Serve from ``folder``; gives ``host:port``. ``auth`` and ``tls`` are YAML of its configuration."""
    folder.mkdir(exist_ok=True)  # noqa: ASYNC240
    with trio.socket.socket() as probe:
        await probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    config = folder / "config.yml"
    http = f'{{addr: "{address}"{", tls: " + tls if tls else ""}}}'
    storage = f"{{filesystem: {{rootdirectory: {folder}/data}}}}"
    config.write_text(
        f"version: 0.1\nlog: {{level: info}}\nstorage: {storage}\nhttp: {http}\n" + (f"auth: {auth}\n" if auth else "")
    )
    process = await trio.lowlevel.open_process(
        ["docker-registry", "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        log = b""
        with trio.fail_after(20):
            while b"listening on" not in log:
                chunk = await process.stderr.receive_some()
                assert chunk, log
                log += chunk
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_drain, process.stderr)
            yield address
            nursery.cancel_scope.cancel()
    finally:
        process.send_signal(signal.SIGKILL)
        with trio.CancelScope(shield=True):
            await process.wait()
            await process.stderr.aclose()


async def _drain(stream: Any) -> None:
    async for _ in stream:
        pass


@pytest.fixture
def open_dockyard(tmp_path):
    @asynccontextmanager
    async def opened(**config):
        async with Dockyard(DockyardConfig(**config), tmp_path / "images") as dockyard:
            yield dockyard

    return opened


@pytest.fixture
def layout(tmp_path):
    return tmp_path / "layout"


@pytest.fixture
def store(tmp_path):
    return tmp_path / "images"


@pytest.fixture
def two_layers(new_tar):
    """A layer, and one above it that hides some of it."""
    lower = new_tar().folder(b"etc").file(b"etc/old", b"1").folder(b"d").file(b"d/a", b"1").file(b"stays", b"1")
    upper = new_tar().folder(b"etc").file(b"etc/.wh.old").folder(b"d").file(b"d/.wh..wh..opq").file(b"d/b", b"2")
    return bytes(lower), bytes(upper)
