"""Reserved option names and the form of their values.

======================== ===========================================================
``port_<n>``             ``port[/proto]`` or ``[hostip:]hostport->containerport[/proto]``
``volume_<n>``           where the volume is mounted: an absolute path
``volume_size_<n>``      its size, a Kubernetes quantity; ``1Gi`` when not declared
``volume_encrypted_<n>`` ``key[:fstype]``: the name of the volume key
``secret_<n>``           the name of an option whose value is secret
``secret_env_<VAR>``     ``[?]secret:key``: from a Secret object
``env_<VAR>``            environment of the container
``runtime_command``      replaces the entrypoint; a JSON list or words as a shell splits them
``runtime_args``         replaces the arguments; same form
======================== ===========================================================

Every parser raises ValueError with a text that says what is allowed; the caller adds the option's name.
"""

from __future__ import annotations

import enum
import ipaddress
import json
import re
import shlex
from pathlib import PurePosixPath
from typing import Literal

import attrs

from nanocloud.planning.quantity import parse_bytes

NAME = re.compile(r"[a-z][a-z0-9_]{0,127}|(?:secret_)?env_[A-Za-z_][A-Za-z0-9_]{0,127}")
"""Names of options."""

DEFAULT_VOLUME_SIZE = "1Gi"
MAX_VALUE_LENGTH = 32 * 1024
_MAX_WORDS = 256

_INDEX = r"(?P<index>0|[1-9][0-9]{0,2})"
_PORT_NUMBER = re.compile(r"[1-9][0-9]{0,4}")
_LABEL = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
_SECRET_ENV = re.compile(
    rf"(?P<optional>\??)(?P<secret>{_LABEL}(?:\.{_LABEL}){{0,3}}):(?P<key>[-._a-zA-Z0-9]{{1,253}})"
)
_ENCRYPTED = re.compile(r"(?P<key>[a-z0-9](?:[-a-z0-9.]{0,61}[a-z0-9])?)(?::(?P<fs_type>ext4|xfs|btrfs))?")
# A mount at, below or above one of these would hide the node's files from the container, or the kernel's.
_KEPT = tuple(
    PurePosixPath(path)
    for path in (
        "/proc",
        "/sys",
        "/dev",
        "/run/nanocloud",
        "/usr/lib/nanocloud",
        "/etc/hosts",
        "/etc/resolv.conf",
        "/etc/hostname",
    )
)


class Reserved(enum.Enum):
    """What a reserved name stands for."""

    PORT = "port"
    VOLUME = "volume"
    VOLUME_SIZE = "volume_size"
    VOLUME_ENCRYPTED = "volume_encrypted"
    SECRET = "secret"  # noqa: S105
    SECRET_ENV = "secret_env"  # noqa: S105
    ENV = "env"
    COMMAND = "runtime_command"
    ARGUMENTS = "runtime_args"


_NAMES = (
    *(
        (kind, re.compile(f"{kind.value}_{_INDEX}"))
        for kind in (
            Reserved.PORT,
            Reserved.VOLUME,
            Reserved.VOLUME_SIZE,
            Reserved.VOLUME_ENCRYPTED,
            Reserved.SECRET,
        )
    ),
    *(
        (kind, re.compile(rf"{kind.value}_(?P<index>[A-Za-z_][A-Za-z0-9_]*)"))
        for kind in (Reserved.SECRET_ENV, Reserved.ENV)
    ),
    *((kind, re.compile(rf"{kind.value}(?P<index>)")) for kind in (Reserved.COMMAND, Reserved.ARGUMENTS)),
)


@attrs.frozen(kw_only=True)
class Port:
    """A port of the container; published on the node when ``host_port`` is set."""

    container_port: int
    protocol: Literal["tcp", "udp"] = "tcp"
    host_port: int | None = None
    host_ip: str | None = None

    def __str__(self) -> str:
        host = "" if self.host_ip is None else f"[{self.host_ip}]:" if ":" in self.host_ip else f"{self.host_ip}:"
        published = "" if self.host_port is None else f"{host}{self.host_port}->"
        return f"{published}{self.container_port}/{self.protocol}"


@attrs.frozen(kw_only=True)
class SecretReference:
    """A key of a Secret object; ``optional`` lets the container start without it."""

    secret: str
    key: str
    optional: bool = False


@attrs.frozen(kw_only=True)
class Encryption:
    key: str
    fs_type: str = "ext4"


def reserved(name: str) -> tuple[Reserved, str] | None:
    """The kind of a reserved name and its ``<n>`` or ``<VAR>``; None for an ordinary option."""
    for kind, form in _NAMES:
        if match := form.fullmatch(name):
            return kind, match["index"]
    return None


def check_value(name: str, value: str) -> None:
    """Refuse a value that the option cannot have, whoever gives it.

    Raises:
        ValueError: says what is allowed; holds no part of the value where it may be secret.
    """
    if len(value) > MAX_VALUE_LENGTH:
        raise ValueError(f"is {len(value)} characters long; the limit is {MAX_VALUE_LENGTH}")
    if "\0" in value:
        raise ValueError("holds a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("is not valid Unicode text") from None
    found = reserved(name)
    if found and (parser := _PARSERS.get(found[0])):
        parser(value)


def parse_port(text: str) -> Port:
    published, arrow, rest = text.rpartition("->")
    number, slash, protocol = rest.partition("/")
    if slash and protocol not in ("tcp", "udp"):
        raise ValueError(f"{protocol[:20]!r} is not a protocol; allowed: tcp, udp")
    kind: Literal["tcp", "udp"] = "udp" if protocol == "udp" else "tcp"
    container = _port_number(number, text)
    if not arrow:
        return Port(container_port=container, protocol=kind)
    address, colon, host = published.rpartition(":")
    return Port(
        container_port=container,
        protocol=kind,
        host_port=_port_number(host, text),
        host_ip=_host_ip(address) if colon else None,
    )


def parse_mount_path(text: str) -> str:
    path = PurePosixPath(text)
    if not text.startswith("/") or text.startswith("//") or len(text) > 1024 or not text.isprintable():
        raise ValueError(f"{text[:60]!r} is not a mount path; write an absolute path of printable characters")
    if str(path) != text or ".." in path.parts or text == "/":
        raise ValueError(f"{text[:60]!r} is not a mount path; write it without '.', '..', '//' and final '/'")
    if any(path == kept or kept in path.parents or path in kept.parents for kept in _KEPT):
        raise ValueError(f"{text[:60]!r} belongs to the node; mount the volume elsewhere")
    return text


def parse_encryption(text: str) -> Encryption:
    match = _ENCRYPTED.fullmatch(text)
    if not match:
        raise ValueError(f"{text[:60]!r} is not key[:fstype]; a key is a lower-case name, fstype ext4, xfs or btrfs")
    return Encryption(key=match["key"], fs_type=match["fs_type"] or "ext4")


def parse_secret_reference(text: str) -> SecretReference:
    match = _SECRET_ENV.fullmatch(text)
    if not match:
        raise ValueError(f"{text[:60]!r} is not [?]secret:key with the name of a Secret and a key in it")
    return SecretReference(secret=match["secret"], key=match["key"], optional=bool(match["optional"]))


def parse_words(text: str) -> tuple[str, ...]:
    """A JSON list of strings, or words split as a shell would; nothing is expanded."""
    words = _json_words(text) if text.lstrip().startswith("[") else _shell_words(text)
    if len(words) > _MAX_WORDS:
        raise ValueError(f"has {len(words)} words; the limit is {_MAX_WORDS}")
    if any("\0" in word for word in words):
        raise ValueError("holds a NUL character")
    return words


def _json_words(text: str) -> tuple[str, ...]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise ValueError("begins with '[' but is not a JSON list of strings") from exc
    if not isinstance(data, list) or not all(isinstance(word, str) for word in data):
        raise ValueError("begins with '[' but is not a JSON list of strings")
    return tuple(data)


def _shell_words(text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError as exc:
        raise ValueError(f"cannot be split into words: {exc}") from None


def _port_number(text: str, whole: str) -> int:
    if not _PORT_NUMBER.fullmatch(text) or int(text) > 65535:
        raise ValueError(
            f"{whole[:60]!r} is not port[/proto] or [hostip:]hostport->containerport[/proto] with ports 1 to 65535"
        )
    return int(text)


def _host_ip(text: str) -> str:
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        raise ValueError(f"{text[:60]!r} is not an IP address; write 127.0.0.1 or [::1]") from None
    if address.version == 6 and bare == text:
        raise ValueError(f"{text[:60]!r}: write an IPv6 address in brackets")
    if getattr(address, "scope_id", None):
        raise ValueError(f"{text[:60]!r}: an address with a zone cannot be used")
    return str(address)


_PARSERS = {
    Reserved.PORT: parse_port,
    Reserved.VOLUME: parse_mount_path,
    Reserved.VOLUME_SIZE: parse_bytes,
    Reserved.VOLUME_ENCRYPTED: parse_encryption,
    Reserved.SECRET_ENV: parse_secret_reference,
    Reserved.COMMAND: parse_words,
    Reserved.ARGUMENTS: parse_words,
}
