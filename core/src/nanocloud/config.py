"""The node's configuration: the only module that reads the configuration file or the environment.

File format: TOML at ``/etc/nanocloud/config.toml`` (or ``$NANOCLOUD_CONFIG``). The table ``[node]`` holds NodeConfig's
fields in snake_case; every other table belongs to the plugin of that name. Environment variables win over the file:
``NANOCLOUD_STATE_DIR``, ``NANOCLOUD_RUN_DIR``, ``NANOCLOUD_LISTEN``, ``NANOCLOUD_STORAGE``, ``NANOCLOUD_RUNTIME``,
``NANOCLOUD_NETWORK``, ``NANOCLOUD_VOLUME``, ``NANOCLOUD_BINDING``, ``NANOCLOUD_REQUIRE_CLIENT_CERTIFICATE``,
``NANOCLOUD_KEEP_UNUSED_IMAGES_SECONDS``, ``NANOCLOUD_ALLOW_PLUGINS``, ``NANOCLOUD_DISABLE_PLUGINS`` and
``NANOCLOUD_CSI_ROOT`` (the field ``root`` of the table ``[csi-loop]``).
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import attrs

from nanocloud.errors import ConfigError, InvalidError
from nanocloud.models.converter import structure

T = TypeVar("T")

DEFAULT_FILE = Path("/etc/nanocloud/config.toml")
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off", "")


def _default_names(cls: type) -> type:
    cls.__json_names__ = {a.name: a.name for a in attrs.fields(cls)}  # type: ignore[attr-defined]
    return cls


@attrs.frozen(kw_only=True)
class NodeConfig:
    """Validated and read-only. Paths are absolute."""

    state_dir: Path = Path("/var/lib/nanocloud.io")
    """What survives a reboot: keyspace, secure assets, images, volumes, logs. Mode 0700."""
    run_dir: Path = Path("/run/nanocloud")
    """What does not: sockets, network namespaces, OCI bundle directories. Mode 0700."""
    listen: str = "127.0.0.1:6443"
    storage: str | None = None
    """Name of the provider; None: core's own, else the only one that is installed. So are the four below."""
    runtime: str | None = None
    network: str | None = None
    volume: str | None = None
    binding: str | None = None
    require_client_certificate: bool = False
    keep_unused_images_seconds: int = 600
    """How long images stay after the last use."""
    allow_plugins: tuple[str, ...] | None = None
    """Entry-point names of the only plugins that are loaded beside core; None for all."""
    disable_plugins: tuple[str, ...] = ()
    """Entry-point names that are not loaded, even where they are allowed."""
    sections: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict, repr=False)
    source: str = "defaults"

    def section(self, name: str, cls: type[T]) -> T:
        """The table ``[name]`` as an attrs class of the plugin; its defaults where the table is absent.

        Field names in the file are the attribute names. Raises ConfigError naming the file and field.
        """
        _default_names(cls)
        try:
            return structure(dict(self.sections.get(name, {})), cls, path=name, what=self.source)
        except InvalidError as exc:
            raise ConfigError(str(exc)) from exc

    @property
    def secure_assets(self) -> Path:
        """CA, keys and certificates; mode 0700, files 0600."""
        return self.state_dir / "secure_assets"


_default_names(NodeConfig)


def load(environ: Mapping[str, str] = os.environ) -> NodeConfig:
    """Read the configuration file and the environment.

    Raises:
        ConfigError: unreadable file, unknown field, wrong type; names where it stands and what is allowed.
    """
    file = Path(environ["NANOCLOUD_CONFIG"]) if environ.get("NANOCLOUD_CONFIG") else DEFAULT_FILE
    tables = _read(file, required="NANOCLOUD_CONFIG" in environ)
    node = dict(tables.pop("node", {}))
    node |= _from_environment(environ)
    if root := environ.get("NANOCLOUD_CSI_ROOT"):
        tables["csi-loop"] = dict(tables.get("csi-loop", {})) | {"root": root}
    node["sections"] = tables
    node["source"] = str(file) if file.exists() else "the environment"
    try:
        config = structure(node, NodeConfig, path="node", what=str(node["source"]))
    except InvalidError as exc:
        raise ConfigError(str(exc)) from exc
    for field in ("state_dir", "run_dir"):
        if not getattr(config, field).is_absolute():
            raise ConfigError(f"{config.source}: node.{field} is {str(getattr(config, field))!r}; it must be absolute")
    if config.keep_unused_images_seconds < 1:
        seconds = config.keep_unused_images_seconds
        raise ConfigError(f"{config.source}: node.keep_unused_images_seconds is {seconds}; it must be at least 1")
    return config


def _read(file: Path, *, required: bool) -> dict[str, Any]:
    try:
        tables = tomllib.loads(file.read_text())
    except FileNotFoundError:
        if required:
            raise ConfigError(f"NANOCLOUD_CONFIG names {file}, which does not exist") from None
        return {}
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{file} cannot be read: {exc}") from exc
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise ConfigError(f"{file}: {name} stands outside a table; node settings belong under [node]")
    return tables


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in ("state_dir", "run_dir", "listen", "storage", "runtime", "network", "volume", "binding"):
        if value := environ.get(f"NANOCLOUD_{field.upper()}"):
            found[field] = value
    flag = "NANOCLOUD_REQUIRE_CLIENT_CERTIFICATE"
    if flag in environ:
        value = environ[flag].strip().lower()
        if value not in _TRUE + _FALSE:
            raise ConfigError(f"{flag} is {environ[flag]!r}; it must be true or false")
        found["require_client_certificate"] = value in _TRUE
    if seconds := environ.get("NANOCLOUD_KEEP_UNUSED_IMAGES_SECONDS"):
        if not seconds.isascii() or not seconds.isdigit():
            raise ConfigError(f"NANOCLOUD_KEEP_UNUSED_IMAGES_SECONDS is {seconds!r}; it must be a number of seconds")
        found["keep_unused_images_seconds"] = int(seconds)
    for field in ("allow_plugins", "disable_plugins"):
        if names := environ.get(f"NANOCLOUD_{field.upper()}"):
            found[field] = [name.strip() for name in names.split(",") if name.strip()]
    return found
