"""Where the API is and who asks: from a kubeconfig, or from the node's own admin certificate.

Order: ``$KUBECONFIG``'s current context; the admin certificate where it can be read (root on the node); the context
``nanocloud`` (else the current one) of ``~/.kube/config``. Light on imports: every command begins here.
"""

from __future__ import annotations

import base64
import binascii
import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nanocloud.errors import ConfigError, UnauthorizedError

CONTEXT = "nanocloud"


class Endpoint:
    """A server and credentials. Certificates are files, or PEM text from inside a kubeconfig."""

    def __init__(
        self,
        server: str,
        *,
        ca: Path | bytes | None = None,
        certificate: Path | bytes | None = None,
        key: Path | bytes | None = None,
        token: str | None = None,
    ) -> None:
        self.server = server.rstrip("/")
        self.ca, self.certificate, self.key, self.token = ca, certificate, key, token

    def ssl_context(self) -> ssl.SSLContext:
        """Verifies the server against the node's CA and presents the client certificate."""
        try:
            if isinstance(self.ca, bytes):
                context = ssl.create_default_context(cadata=self.ca.decode())
            else:
                context = ssl.create_default_context(cafile=self.ca)
            if self.certificate is not None and self.key is not None:
                with _as_file(self.certificate) as certificate, _as_file(self.key) as key:
                    context.load_cert_chain(certificate.path, key.path)
        except (OSError, ssl.SSLError, ValueError) as exc:
            raise ConfigError(f"the credentials for {self.server} cannot be used: {exc}") from exc
        return context


class _as_file:  # noqa: N801  (used as a function)
    """OpenSSL reads certificates from paths only; PEM text becomes a memory file, never one on disk."""

    def __init__(self, content: Path | bytes) -> None:
        self._descriptor: int | None = None
        if isinstance(content, bytes):
            self._descriptor = os.memfd_create("pem", os.MFD_CLOEXEC)
            os.write(self._descriptor, content)
            self.path = f"/proc/self/fd/{self._descriptor}"
        else:
            self.path = str(content)

    def __enter__(self) -> _as_file:
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)


def find_endpoint(environ: Mapping[str, str] = os.environ) -> Endpoint:
    """The endpoint that a command without further words talks to.

    Raises:
        UnauthorizedError: there is none; says how to make one.
    """
    if environ.get("KUBECONFIG"):
        return from_kubeconfig(Path(environ["KUBECONFIG"].split(os.pathsep)[0]))
    state = Path(environ.get("NANOCLOUD_STATE_DIR") or "/var/lib/nanocloud.io")
    if not environ.get("NANOCLOUD_STATE_DIR") and _has_file(environ):
        state = Path(_configured(environ, "state_dir", str(state)))
    assets = state / "secure_assets"
    if os.access(assets / "admin.key", os.R_OK):
        return Endpoint(
            f"https://{local_address(environ)}",
            ca=assets / "ca.crt",
            certificate=assets / "admin.crt",
            key=assets / "admin.key",
        )
    personal = Path(environ.get("HOME", "/root")) / ".kube" / "config"
    if personal.exists():
        return from_kubeconfig(personal, prefer=CONTEXT)
    raise UnauthorizedError(
        "no node is known to this user: no kubeconfig, and the node's admin certificate cannot be read",
        hint="run it with sudo on the node, or install a kubeconfig: nanocloud config --token TOKEN | sh",
    )


def local_address(environ: Mapping[str, str]) -> str:
    """Where the node's own server listens, as a client reaches it."""
    listen = environ.get("NANOCLOUD_LISTEN") or "127.0.0.1:6443"
    if not environ.get("NANOCLOUD_LISTEN") and _has_file(environ):
        listen = _configured(environ, "listen", listen)
    host, _, port = listen.rpartition(":")
    return f"127.0.0.1:{port}" if host in ("0.0.0.0", "[::]", "::", "") else listen  # noqa: S104


_CONFIG = "/etc/nanocloud/config.toml"


def _has_file(environ: Mapping[str, str]) -> bool:
    """Reading the configuration costs imports; most nodes have no file."""
    return bool(environ.get("NANOCLOUD_CONFIG")) or os.access(_CONFIG, os.R_OK)


def _configured(environ: Mapping[str, str], field: str, default: str) -> str:
    """A setting of the node, read without the classes of ``config``, which take longer to import than a request."""
    import tomllib

    try:
        node = tomllib.loads(Path(environ.get("NANOCLOUD_CONFIG") or _CONFIG).read_text()).get("node", {})
        value = node.get(field, default)
    except (OSError, ValueError, AttributeError):
        value = None
    if isinstance(value, str):
        return value
    from nanocloud.config import load  # says what is wrong with the file

    return str(getattr(load(environ), field))


def from_kubeconfig(path: Path, *, prefer: str | None = None) -> Endpoint:
    """Read one context of a kubeconfig.

    Raises:
        ConfigError: unreadable, or without what is needed; names the file and the entry.
    """
    import yaml

    try:
        data = yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    except (OSError, yaml.YAMLError) as exc:
        raise ConfigError(f"kubeconfig {path} cannot be read: {exc}") from exc
    if not isinstance(data, dict):
        raise ConfigError(f"kubeconfig {path} is not a mapping")
    name = data.get("current-context")
    if prefer and any(entry.get("name") == prefer for entry in data.get("contexts") or []):
        name = prefer
    context = _named(path, data, "contexts", name).get("context") or {}
    cluster = _named(path, data, "clusters", context.get("cluster")).get("cluster") or {}
    user = _named(path, data, "users", context.get("user")).get("user") or {}
    if not cluster.get("server"):
        raise ConfigError(f"kubeconfig {path}: cluster {context.get('cluster')!r} has no server")
    return Endpoint(
        cluster["server"],
        ca=_content(path, cluster, "certificate-authority"),
        certificate=_content(path, user, "client-certificate"),
        key=_content(path, user, "client-key"),
        token=user.get("token"),
    )


def _named(path: Path, data: dict[str, Any], section: str, name: object) -> dict[str, Any]:
    for entry in data.get(section) or []:
        if isinstance(entry, dict) and entry.get("name") == name:
            return entry
    raise ConfigError(f"kubeconfig {path}: {section} has no {name!r}")


def _content(path: Path, entry: dict[str, Any], field: str) -> Path | bytes | None:
    if inline := entry.get(f"{field}-data"):
        try:
            return base64.b64decode(inline, validate=True)
        except (binascii.Error, TypeError) as exc:
            raise ConfigError(f"kubeconfig {path}: {field}-data is not base64: {exc}") from None
    return path.parent / entry[field] if entry.get(field) else None
