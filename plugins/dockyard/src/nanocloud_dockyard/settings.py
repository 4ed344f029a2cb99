"""The table ``[dockyard]`` of the node's configuration.

::

    [dockyard]
    registry = "registry.example/dockyard"       # where services come from that are not built here
    auth_file = "/etc/nanocloud/registries.json" # credentials, in the form of Docker's config.json
    plain_http = ["127.0.0.1:5000"]              # hosts spoken to without TLS; no other ever is
    proxy = "http://proxy.example:3128"

    [dockyard.registries."docker.io"]
    mirrors = ["mirror.example:5000/hub"]        # asked first, in order
    ca_file = "/etc/nanocloud/local-ca.pem"      # trusted besides the system's authorities

    [dockyard.limits]
    max_image_bytes = 68719476736
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import attrs

from nanocloud.errors import ConfigError, InvalidError
from nanocloud_dockyard.limits import GIB, UnpackLimits
from nanocloud_dockyard.reference import Reference, RegistryReference, parse_host, parse_reference


def _named(cls: type) -> dict[str, str]:
    """Fields are spelled in the file as they are here."""
    return {field.name: field.name for field in attrs.fields(cls)}


@attrs.frozen(kw_only=True)
class RegistrySettings:
    __json_names__: ClassVar[dict[str, str]]
    mirrors: tuple[str, ...] = ()
    """``host[:port][/prefix]``"""
    ca_file: Path | None = None


@attrs.frozen(kw_only=True)
class LimitSettings:
    __json_names__: ClassVar[dict[str, str]]
    max_image_bytes: int = 32 * GIB
    """Of all compressed layers of an image."""
    max_layer_bytes: int = UnpackLimits().max_layer_bytes
    """Of one layer, uncompressed."""
    max_entries: int = UnpackLimits().max_entries

    @property
    def unpack(self) -> UnpackLimits:
        return UnpackLimits(max_layer_bytes=self.max_layer_bytes, max_entries=self.max_entries)


@attrs.frozen(kw_only=True)
class DockyardConfig:
    registry: str | None = None
    auth_file: Path | None = None
    plain_http: tuple[str, ...] = ()
    proxy: str | None = None
    parallel_layers: int = 3
    registries: dict[str, RegistrySettings] = attrs.field(factory=dict)
    limits: LimitSettings = attrs.field(factory=LimitSettings)

    def __attrs_post_init__(self) -> None:
        for field, hosts in (("plain_http", self.plain_http), ("registries", tuple(self.registries))):
            for host in hosts:
                if parse_host(host) is None:
                    raise ConfigError(f"dockyard.{field}: {host!r} is no host[:port]")
        if self.registry is not None:
            parsed: Reference | None
            try:
                parsed = parse_reference(f"{self.registry}/service")
            except InvalidError:
                parsed = None
            if not isinstance(parsed, RegistryReference) or parsed.tag != "latest":
                raise ConfigError(f"dockyard.registry is {self.registry!r}; it must be host[:port][/prefix]")
        for host, settings in self.registries.items():
            for mirror in settings.mirrors:
                if parse_host(mirror.partition("/")[0]) is None:
                    raise ConfigError(f"dockyard.registries.{host}.mirrors: {mirror!r} is no host[:port][/prefix]")
        if not 1 <= self.parallel_layers <= 16:
            raise ConfigError(f"dockyard.parallel_layers is {self.parallel_layers}; it must be 1 to 16")
        for name, value in attrs.asdict(self.limits).items():
            if value < 1:
                raise ConfigError(f"dockyard.limits.{name} is {value}; it must be above 0")


for _cls in (RegistrySettings, LimitSettings):
    _cls.__json_names__ = _named(_cls)
