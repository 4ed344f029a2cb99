"""The documents of an image: index, manifest, configuration. Untrusted JSON becomes checked data.

Unknown fields are ignored, as the specification asks; a known one of the wrong type is an error that names it. A
document that could be read as two kinds is refused (CVE-2021-41190).

Source: OCI image specification 1.1: image-index.md, manifest.md, config.md; Docker image manifest version 2, schema 2.
"""

from __future__ import annotations

import platform
import posixpath
import re
from typing import Any

import attrs
import orjson

from nanocloud.errors import ImageError
from nanocloud.providers.image import Digest, ImageConfig
from nanocloud_dockyard.limits import MAX_CONFIG_BYTES, MAX_INDEX_ENTRIES, MAX_LAYERS, MAX_MANIFEST_BYTES
from nanocloud_dockyard.reference import parse_digest

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_LIST})
MANIFEST_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
ACCEPT = ", ".join((OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST))
_CONFIG_TYPES = frozenset(
    {"application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"}
)
_LAYER_TYPES = frozenset(
    f"application/vnd.{stem}"
    for stem in (
        "oci.image.layer.v1.tar",
        "oci.image.layer.v1.tar+gzip",
        "oci.image.layer.v1.tar+zstd",
        "oci.image.layer.nondistributable.v1.tar",
        "oci.image.layer.nondistributable.v1.tar+gzip",
        "oci.image.layer.nondistributable.v1.tar+zstd",
        "docker.image.rootfs.diff.tar",
        "docker.image.rootfs.diff.tar.gzip",
        "docker.image.rootfs.diff.tar.zstd",
    )
)
_PLATFORM_NAME = re.compile(r"[A-Za-z0-9._-]{0,64}")
REF_NAME = "org.opencontainers.image.ref.name"
_MACHINES = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i686": ("386", ""),
    "riscv64": ("riscv64", ""),
    "ppc64le": ("ppc64le", ""),
    "s390x": ("s390x", ""),
    "loongarch64": ("loong64", ""),
}


@attrs.frozen(kw_only=True)
class Platform:
    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))

    def runs(self, other: Platform) -> bool:
        """Whether an image for ``other`` runs here; a variant counts only where both name one."""
        same = (self.os, self.architecture) == (other.os, other.architecture)
        return same and (not self.variant or other.variant in ("", self.variant))


def this_platform() -> Platform:
    machine = platform.machine()
    architecture, variant = _MACHINES.get(machine, (machine, ""))
    return Platform(os="linux", architecture=architecture, variant=variant)


@attrs.frozen(kw_only=True)
class Descriptor:
    media_type: str
    digest: Digest
    size_bytes: int
    platform: Platform | None = None
    ref_name: str | None = None
    """Its tag, in the index of a layout folder."""


@attrs.frozen(kw_only=True)
class Manifest:
    config: Descriptor
    layers: tuple[Descriptor, ...]

    @property
    def size_bytes(self) -> int:
        return sum(layer.size_bytes for layer in self.layers)


@attrs.frozen(kw_only=True)
class Configuration:
    platform: Platform
    config: ImageConfig
    diff_ids: tuple[Digest, ...]
    """One for each layer, lowest first: the digest of its tar."""


class _Reader:
    """Typed access to one JSON object; every complaint names the document and the field."""

    def __init__(self, data: Any, what: str, path: str = "") -> None:
        self._what, self._path = what, path
        if not isinstance(data, dict):
            raise self.wrong("", "an object")
        self._data: dict[str, Any] = data

    def wrong(self, field: str, expected: str) -> ImageError:
        path = f"{self._path}.{field}".strip(".") or "the document"
        return ImageError(f"{self._what} is broken: {path} must be {expected}")

    def has(self, field: str) -> bool:
        return self._data.get(field) is not None

    def text(self, field: str, default: str | None = None) -> str:
        value = self._data.get(field)
        if value is None and default is not None:
            return default
        if not isinstance(value, str) or "\0" in value:
            raise self.wrong(field, "a string without NUL")
        return value

    def texts(self, field: str) -> tuple[str, ...]:
        value = self._data.get(field) or []
        if not isinstance(value, list) or not all(isinstance(item, str) and "\0" not in item for item in value):
            raise self.wrong(field, "a list of strings without NUL")
        return tuple(value)

    def keys(self, field: str) -> tuple[str, ...]:
        return tuple(self.mapping(field))

    def mapping(self, field: str) -> dict[str, Any]:
        value = self._data.get(field) or {}
        if not isinstance(value, dict):
            raise self.wrong(field, "an object")
        return value

    def labels(self, field: str) -> dict[str, str]:
        value = self.mapping(field)
        if not all(isinstance(item, str) for item in value.values()):
            raise self.wrong(field, "an object of strings")
        return value

    def child(self, field: str) -> _Reader:
        return _Reader(self._data.get(field), self._what, f"{self._path}.{field}".strip("."))

    def children(self, field: str, most: int) -> tuple[_Reader, ...]:
        value = self._data.get(field)
        if not isinstance(value, list) or len(value) > most:
            raise self.wrong(field, f"a list of at most {most}")
        return tuple(_Reader(item, self._what, f"{field}[{index}]") for index, item in enumerate(value))

    def descriptor(self) -> Descriptor:
        digest, size = parse_digest(self._data.get("digest")), self._data.get("size")
        if digest is None:
            raise self.wrong("digest", "sha256:<64 hexadecimal digits>")
        if type(size) is not int or not 0 <= size < 1 << 62:
            raise self.wrong("size", "a number of bytes")
        return Descriptor(
            media_type=self.text("mediaType", ""),
            digest=digest,
            size_bytes=size,
            platform=self.child("platform").platform() if self.has("platform") else None,
            ref_name=self.mapping("annotations").get(REF_NAME),
        )

    def platform(self) -> Platform:
        names = {field: self.text(field, "") for field in ("os", "architecture", "variant")}
        for field, name in names.items():
            if not _PLATFORM_NAME.fullmatch(name):  # people get to see it
                raise self.wrong(field, "a name of letters, digits and ._- of at most 64 characters")
        return Platform(**names)


def _document(data: bytes, what: str, most: int) -> _Reader:
    if len(data) > most:
        raise ImageError(f"{what} is over {most} bytes")
    try:
        return _Reader(orjson.loads(data), what)
    except orjson.JSONDecodeError as exc:
        raise ImageError(f"{what} is not JSON: {exc}") from exc


def media_type_of(data: bytes, stated: str, what: str) -> str:
    """The media type of an index or manifest: as stated, as it says itself, and as it looks; all must agree."""
    reader = _document(data, what, MAX_MANIFEST_BYTES)
    own = reader.text("mediaType", "")
    is_index, is_manifest = reader.has("manifests"), reader.has("layers") or reader.has("config")
    stated = stated.partition(";")[0].strip().lower()
    if stated not in INDEX_TYPES | MANIFEST_TYPES:  # "application/json" and the like say nothing
        stated = own or (OCI_INDEX if is_index else OCI_MANIFEST)
    if own and own != stated:
        raise ImageError(f"{what} is {own!r} by its own words, but {stated!r} by its source")
    if stated not in INDEX_TYPES | MANIFEST_TYPES:
        raise ImageError(f"{what} has media type {stated!r}, which is no image")
    if is_index == is_manifest or is_index != (stated in INDEX_TYPES):
        raise ImageError(f"{what} is ambiguous: its fields do not fit {stated}")
    return stated


def parse_index(data: bytes, what: str) -> tuple[Descriptor, ...]:
    reader = _document(data, what, MAX_MANIFEST_BYTES)
    return tuple(child.descriptor() for child in reader.children("manifests", MAX_INDEX_ENTRIES))


def parse_manifest(data: bytes, what: str) -> Manifest:
    """Raises ImageError for what is no image for containers, too (signatures, charts, attestations)."""
    reader = _document(data, what, MAX_MANIFEST_BYTES)
    config = reader.child("config").descriptor()
    if config.media_type not in _CONFIG_TYPES:
        raise ImageError(f"{what} is no container image: its configuration is {config.media_type!r}")
    if config.size_bytes > MAX_CONFIG_BYTES:
        raise ImageError(f"{what} has a configuration over {MAX_CONFIG_BYTES} bytes")
    layers = tuple(child.descriptor() for child in reader.children("layers", MAX_LAYERS))
    for layer in layers:
        if layer.media_type not in _LAYER_TYPES:
            raise ImageError(f"{what}: layer {layer.digest} has media type {layer.media_type!r}, which is no layer")
    return Manifest(config=config, layers=layers)


def parse_parts(data: bytes, what: str) -> tuple[Descriptor, ...]:
    """All blobs that a manifest names, whatever they are: for passing on, not for running."""
    reader = _document(data, what, MAX_MANIFEST_BYTES)
    layers = reader.children("layers", MAX_LAYERS)
    return (reader.child("config").descriptor(), *(layer.descriptor() for layer in layers))


def parse_configuration(data: bytes, what: str) -> Configuration:
    reader = _document(data, what, MAX_CONFIG_BYTES)
    diff_ids = reader.child("rootfs").texts("diff_ids")
    if not all(map(parse_digest, diff_ids)):
        raise reader.wrong("rootfs.diff_ids", "a list of sha256:<64 hexadecimal digits>")
    inner = reader.child("config") if reader.has("config") else _Reader({}, what, "config")
    return Configuration(
        platform=reader.platform(),
        config=ImageConfig(
            entrypoint=inner.texts("Entrypoint"),
            command=inner.texts("Cmd"),
            environment=dict(item.partition("=")[::2] for item in inner.texts("Env")),
            working_directory=posixpath.normpath(posixpath.join("/", inner.text("WorkingDir", ""))),
            user=inner.text("User", ""),
            labels=inner.labels("Labels"),
            exposed_ports=inner.keys("ExposedPorts"),
            volumes=inner.keys("Volumes"),
            stop_signal=inner.text("StopSignal", "") or "SIGTERM",
        ),
        diff_ids=tuple(Digest(diff_id) for diff_id in diff_ids),
    )


def select(descriptors: tuple[Descriptor, ...], here: Platform, what: str) -> Descriptor:
    """The entry of an index for this machine: the same variant first, then one that names none.

    Raises:
        ImageError: there is none; lists the platforms that there are.
    """
    fitting = [d for d in descriptors if d.platform is None or here.runs(d.platform)]
    if not fitting:
        offered = sorted({str(d.platform) for d in descriptors if d.platform and d.platform.os != "unknown"})
        raise ImageError(f"{what} has no image for {here}; it has {', '.join(offered) or 'none'}")
    ranks = {here.variant: 0, "": 1}
    return min(fitting, key=lambda d: ranks.get(d.platform.variant, 2) if d.platform else 3)
