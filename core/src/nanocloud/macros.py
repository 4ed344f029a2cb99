"""The macros that every node has: ``!bundle``, ``!rand``, ``!local_ip``, ``!dns``, ``!tls`` and ``!if``.

Expanding one changes nothing on the node and sends nothing on the network. ``!tls`` gives only a path: planning sees it
in the options and asks the node's CA for the certificate.
"""

from __future__ import annotations

import fcntl
import ipaddress
import secrets
import socket
import string
import struct
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from nanocloud.errors import InvalidError, ProviderError
from nanocloud.planning.workload import TLS_DIRECTORY
from nanocloud.providers.macro import MacroContext, MacroProvider, MacroValue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

CHARSETS = {
    "alnum": string.ascii_letters + string.digits,
    "alpha": string.ascii_letters,
    "base32": string.ascii_uppercase + "234567",
    "base64url": string.ascii_letters + string.digits + "-_",
    "digits": string.digits,
    "hex": string.digits + "abcdef",
    "lower": string.ascii_lowercase,
    "upper": string.ascii_uppercase,
}
MAX_RANDOM_LENGTH = 4096
TLS_FILES = {"key": "tls.key", "cert": "tls.crt", "ca": "ca.crt"}

_SIOCGIFADDR = 0x8915
# A stub resolver of the host listens on loopback, where no container reaches it; its own servers stand here.
_STUB_UPSTREAM = Path("/run/systemd/resolve/resolv.conf")


class BuiltinMacros(MacroProvider):
    """The arguments are for tests; a node uses the defaults."""

    def __init__(
        self,
        *,
        resolv_conf: Path = Path("/etc/resolv.conf"),
        stub_upstream: Path = _STUB_UPSTREAM,
        local_address: Callable[[], str] | None = None,
    ) -> None:
        self._resolv_conf = resolv_conf
        self._stub_upstream = stub_upstream
        self._local_address = local_address or first_address

    @property
    def name(self) -> str:
        return "builtin"

    @property
    def macros(self) -> Sequence[str]:
        return ("bundle", "dns", "if", "local_ip", "rand", "tls")

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        yield

    async def expand(self, macro: str, arguments: Sequence[str], context: MacroContext) -> MacroValue:
        match macro:
            case "rand":
                return _rand(arguments)
            case "tls":
                return _tls(arguments)
            case "if":
                return _if(arguments, context)
            case "bundle":
                _no_arguments(macro, arguments)
                return MacroValue(value=context.bundle)
            case "local_ip":
                _no_arguments(macro, arguments)
                return MacroValue(value=self._local_address())
            case "dns":
                _no_arguments(macro, arguments)
                return MacroValue(value=first_nameserver(self._resolv_conf, self._stub_upstream))
            case _:
                raise InvalidError(f"!{macro[:60]} is not one of !{', !'.join(self.macros)}")


def first_address() -> str:
    """The address from which the node speaks to other machines; else that of its first interface but loopback.

    Connecting a datagram socket only looks up the route: nothing is sent.

    Raises:
        ProviderError: the node has no such address.
    """
    for family, elsewhere in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((elsewhere, 9))
                found = ipaddress.ip_address(probe.getsockname()[0])
        except OSError:
            continue  # no route of that family
        if not found.is_loopback and not found.is_link_local:
            return str(found)
    for _, interface in socket.if_nameindex():
        address = _interface_address(interface)
        if address and not ipaddress.ip_address(address).is_loopback:
            return address
    raise ProviderError("!local_ip: this node has no address but loopback", hint="Connect it to a network.")


def first_nameserver(resolv_conf: Path, stub_upstream: Path) -> str:
    """Raises ProviderError where no name server is configured."""
    servers = _nameservers(resolv_conf)
    if servers and servers[0].is_loopback:
        servers = _nameservers(stub_upstream) or servers
    if not servers:
        raise ProviderError(f"!dns: {resolv_conf} names no name server", hint="Add a nameserver line to it.")
    return str(servers[0])


def _nameservers(file: Path) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                address = ipaddress.ip_address(words[1])
            except ValueError:
                continue  # resolvers skip a bad line too
            if not address.is_link_local:  # means nothing without its interface, which a container does not have
                found.append(address)
    return found


def _interface_address(name: str) -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            reply = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
        except OSError:
            return None  # the interface has no IPv4 address
    return socket.inet_ntoa(reply[20:24])


def _rand(arguments: Sequence[str]) -> MacroValue:
    allowed = f"!rand LEN CHARSET with LEN 1 to {MAX_RANDOM_LENGTH} and CHARSET one of {', '.join(CHARSETS)}"
    if len(arguments) != 2 or arguments[1] not in CHARSETS:
        raise InvalidError(f"{_written('rand', arguments)} is not {allowed}")
    text, charset = arguments
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= MAX_RANDOM_LENGTH):
        raise InvalidError(f"{_written('rand', arguments)} is not {allowed}")
    alphabet = CHARSETS[charset]
    return MacroValue(value="".join(secrets.choice(alphabet) for _ in range(int(text))), secret=True)


def _tls(arguments: Sequence[str]) -> MacroValue:
    if len(arguments) != 1 or arguments[0] not in TLS_FILES:
        raise InvalidError(f"{_written('tls', arguments)} is not one of !tls key, !tls cert, !tls ca")
    return MacroValue(value=f"{TLS_DIRECTORY}/{TLS_FILES[arguments[0]]}")


def _if(arguments: Sequence[str], context: MacroContext) -> MacroValue:
    if len(arguments) not in (2, 3) or "=" not in arguments[0]:
        raise InvalidError(f"{_written('if', arguments)} is not !if key=value A [B]")
    option, _, wanted = arguments[0].partition("=")
    then, otherwise = arguments[1], arguments[2] if len(arguments) == 3 else ""
    return MacroValue(value=then if context.options.get(option) == wanted else otherwise)


def _no_arguments(macro: str, arguments: Sequence[str]) -> None:
    if arguments:
        raise InvalidError(f"{_written(macro, arguments)}: !{macro} takes no arguments")


def _written(macro: str, arguments: Sequence[str]) -> str:
    text = " ".join((f"!{macro}", *arguments))
    return repr(text if len(text) <= 80 else f"{text[:77]}...")
