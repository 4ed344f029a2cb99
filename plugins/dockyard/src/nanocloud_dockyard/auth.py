"""Proof of identity for registries: stored credentials, challenges, and the tokens they are exchanged for.

Credentials stand in a file of Docker's form, ``{"auths": {"host": {"auth": base64("user:password")}}}``; ``username``
and ``password`` or an ``identitytoken`` may stand there instead. They are sent to the host they stand for and to the
token server that this host names, over TLS unless the host is configured to be plain.

Source: distribution specification, "Token Authentication"; RFC 9110, 11.6.1 (challenges); RFC 7617 (Basic).
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING

import attrs
import orjson

from nanocloud.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_SCHEME = re.compile(rf"\s*,?\s*({_WORD})(?:\s+|(?=,)|$)")
_PARAMETER = re.compile(rf'\s*,?\s*({_WORD})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_WORD}))')
_DOCKER_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io", "https://index.docker.io/v1/")


@attrs.frozen(kw_only=True)
class Credentials:
    username: str
    password: str = attrs.field(repr=False)
    identity_token: str = attrs.field(default="", repr=False)

    @property
    def basic(self) -> str:
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


@attrs.frozen(kw_only=True)
class Challenge:
    """One challenge of ``WWW-Authenticate``."""

    scheme: str
    """Lower case."""
    parameters: dict[str, str]


def parse_challenges(header: str) -> list[Challenge]:
    """Every challenge of the header, in order; what cannot be read ends the list."""
    found: list[Challenge] = []
    at = 0
    while scheme := _SCHEME.match(header, at):
        at = scheme.end()
        parameters: dict[str, str] = {}
        while parameter := _PARAMETER.match(header, at):
            at = parameter.end()
            name, quoted, plain = parameter.groups()
            parameters[name.lower()] = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        found.append(Challenge(scheme=scheme[1].lower(), parameters=parameters))
    return found


class CredentialFile:
    """The credentials of ``path``, read again for every question: they change without a restart."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def of(self, host: str) -> Credentials | None:
        """What stands for ``host``. Blocks for one small read.

        Raises:
            ConfigError: the file cannot be read; the message never shows its content.
        """
        if self._path is None:
            return None
        try:
            auths = orjson.loads(self._path.read_bytes()).get("auths", {})
            names = _DOCKER_HUB if host in _DOCKER_HUB else (host, f"https://{host}", f"http://{host}")
            entry = next((auths[name] for name in names if name in auths), None)
            return None if entry is None else _credentials(entry)
        except OSError as exc:
            raise ConfigError(f"dockyard.auth_file {self._path} cannot be read: {exc.strerror}") from None
        except (ValueError, AttributeError, TypeError, binascii.Error):
            raise ConfigError(
                f'dockyard.auth_file {self._path}: the entry of {host} is not of the form {{"auth": "<base64>"}}'
            ) from None


def _credentials(entry: dict[str, str]) -> Credentials:
    username, password = entry.get("username", ""), entry.get("password", "")
    if packed := entry.get("auth"):
        username, colon, password = base64.b64decode(packed, validate=True).decode().rstrip("\0").partition(":")
        if not colon:
            raise ValueError("no colon")
    return Credentials(username=username, password=password, identity_token=entry.get("identitytoken", ""))
