"""What can be written where an image is meant.

- ``mariadb[@sha256:<hex>]``: a service of the catalogue (RFC 1123 label).
- ``host[:port]/name[:tag][@sha256:<hex>]``: an image in a registry. The host is never guessed: it has a dot, a port,
  or is ``localhost``. ``docker.io/nginx`` means ``docker.io/library/nginx``; without tag and digest, ``latest``.
- ``oci:/path[:tag][@sha256:<hex>]``: an image in an OCI layout folder; without tag and digest, its only image.
- ``oci-archive:/path[:tag][@sha256:<hex>]``: the same in the tar of such a folder.

Where a digest stands, it decides and the tag is only a note.

Source: OCI distribution specification 1.1, "Pulling manifests"; the grammar of distribution/reference.
"""

from __future__ import annotations

import re

import attrs

from nanocloud.errors import InvalidError
from nanocloud.providers.image import Digest

MAX_REFERENCE_CHARACTERS = 4096
_SERVICE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_HOST = re.compile(
    r"(?P<name>[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?(\.[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?)*|\[[0-9A-Fa-f:.]+\])"
    r"(:(?P<port>[0-9]{1,5}))?"
)
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_SHAPES = "a service, host[:port]/name[:tag][@sha256:...], oci:/path[:tag] or oci-archive:/path[:tag]"
_LAYOUT, _ARCHIVE = "oci:", "oci-archive:"


@attrs.frozen(kw_only=True)
class ServiceReference:
    service: str
    digest: Digest | None = None

    def __str__(self) -> str:
        return self.service + _suffix(None, self.digest)


@attrs.frozen(kw_only=True)
class RegistryReference:
    host: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    def __str__(self) -> str:
        return f"{self.host}/{self.repository}" + _suffix(self.tag, self.digest)


@attrs.frozen(kw_only=True)
class LayoutReference:
    path: str
    tag: str | None = None
    digest: Digest | None = None
    archive: bool = False
    """Whether ``path`` is a tar of the layout."""

    def __str__(self) -> str:
        return (_ARCHIVE if self.archive else _LAYOUT) + self.path + _suffix(self.tag, self.digest)


def _suffix(tag: str | None, digest: Digest | None) -> str:
    return (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")


Reference = ServiceReference | RegistryReference | LayoutReference


def parse_digest(value: object) -> Digest | None:
    """``value`` if it is a sha256 digest. Only this algorithm: images name no other one in practice."""
    return Digest(value) if isinstance(value, str) and _DIGEST.fullmatch(value) else None


def parse_host(value: str) -> str | None:
    """``value`` if it is ``host[:port]``."""
    found = _HOST.fullmatch(value)
    if not found or len(value) > 255:
        return None
    return value if found["port"] is None or 0 < int(found["port"]) < 65536 else None


def parse_reference(text: str) -> Reference:
    """Read a reference; ``str()`` of the result means the same image.

    Raises:
        InvalidError: it has none of the shapes; says which part is wrong.
    """
    if len(text) > MAX_REFERENCE_CHARACTERS:
        raise InvalidError(f"an image reference has at most {MAX_REFERENCE_CHARACTERS} characters, not {len(text)}")
    named, at, pinned = text.rpartition("@") if "@sha256:" in text else (text, "", "")
    digest = parse_digest(pinned)
    if at and digest is None:
        raise InvalidError(f"image reference {text!r}: {pinned!r} is not sha256:<64 hexadecimal digits>")
    for prefix in (_LAYOUT, _ARCHIVE):
        if named.startswith(prefix):
            return _layout(text, named.removeprefix(prefix), digest, archive=prefix == _ARCHIVE)
    if "/" in named:
        return _registry(text, named, digest)
    if _SERVICE.fullmatch(named):
        return ServiceReference(service=named, digest=digest)
    hint = f"name the registry too: docker.io/{text}" if re.match(r"[a-z0-9][\w.-]*:", text) else ""
    raise InvalidError(f"image reference {text!r} is not {_SHAPES}", hint=hint)


def _layout(text: str, named: str, digest: Digest | None, *, archive: bool) -> LayoutReference:
    path, colon, tag = named.rpartition(":")
    if not colon or "/" in tag:
        path, colon, tag = named, "", ""
    if not path.startswith("/") or "\0" in path or ".." in path.split("/"):
        raise InvalidError(
            f"image reference {text!r}: the {'file' if archive else 'folder'} must be an absolute path without .."
        )
    if colon and not _TAG.fullmatch(tag):
        raise InvalidError(f"image reference {text!r}: {tag!r} is not a tag")
    return LayoutReference(path=path, tag=tag or None, digest=digest, archive=archive)


def _registry(text: str, named: str, digest: Digest | None) -> RegistryReference:
    host, _, name = named.partition("/")
    name, colon, tag = name.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise InvalidError(f"image reference {text!r}: {tag!r} is not a tag")
    if parse_host(host) is None or not ("." in host or ":" in host or host == "localhost"):
        raise InvalidError(
            f"image reference {text!r}: {host!r} is not the host of a registry",
            hint=f"name the registry too: docker.io/{text}",
        )
    if host in ("docker.io", "index.docker.io"):
        host, name = "docker.io", name if "/" in name else f"library/{name}"
    if not _REPOSITORY.fullmatch(name) or len(name) > 255:
        raise InvalidError(f"image reference {text!r}: {name!r} is not a repository (lower case, digits, . _ - /)")
    if not colon and digest is None:
        tag = "latest"
    return RegistryReference(host=host, repository=name, tag=tag or None, digest=digest)
