"""What a user may configure in the table ``[cni-bridge]``, checked before anything touches the host."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address
from typing import TYPE_CHECKING, TypeVar

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable

N = TypeVar("N", IPv4Network, IPv6Network)

_INTERFACE = re.compile(r"[a-zA-Z][a-zA-Z0-9_.-]{0,14}")  # IFNAMSIZ is 16 with the final NUL
_TABLE = re.compile(r"[a-z][a-z0-9_]{0,31}")  # an nft identifier that needs no quotes
_MTU_RANGE = range(1280, 65536)  # IPv6 needs 1280


def _interface(_: object, attribute: attrs.Attribute[str], value: str) -> None:
    if not _INTERFACE.fullmatch(value):
        raise ValueError(f"{attribute.name} is {value!r}; an interface name has 1 to 15 letters, digits, '_', '.', '-'")


def _table(_: object, attribute: attrs.Attribute[str], value: str) -> None:
    if not _TABLE.fullmatch(value):
        raise ValueError(f"{attribute.name} is {value!r}; it must match {_TABLE.pattern}")


def _subnet(_: object, attribute: attrs.Attribute[str], value: str) -> None:
    network = _network(attribute.name, value, IPv4Network, "10.118.0.0/16")
    if not 8 <= network.prefixlen <= 29:
        raise ValueError(f"{attribute.name} is {value!r}; its prefix length must be 8 to 29")
    if not network.is_private or network.is_loopback or network.is_link_local:
        raise ValueError(f"{attribute.name} is {value!r}; it must be a private range (RFC 1918)")


def _subnet6(_: object, attribute: attrs.Attribute[str], value: str) -> None:
    if not value:
        return
    network = _network(attribute.name, value, IPv6Network, "fd6e:616e:6f63::/64")
    if not network.subnet_of(IPv6Network("fc00::/7")):
        raise ValueError(f"{attribute.name} is {value!r}; it must be a unique local range (RFC 4193, fd00::/8)")


def _network(field: str, value: str, kind: Callable[[str], N], example: str) -> N:
    try:
        return kind(value)
    except ValueError as exc:
        raise ValueError(f"{field} is {value!r}: {exc}; write a network like {example!r}") from None


def _mtu(_: object, attribute: attrs.Attribute[int | None], value: int | None) -> None:
    if value is not None and value not in _MTU_RANGE:
        raise ValueError(f"{attribute.name} is {value}; it must be {_MTU_RANGE[0]} to {_MTU_RANGE[-1]}")


def _upstream(_: object, attribute: attrs.Attribute[tuple[str, ...]], value: tuple[str, ...]) -> None:
    for entry in value:
        try:
            ip_address(entry)
        except ValueError:
            raise ValueError(f"{attribute.name} holds {entry!r}; each entry must be an IP address") from None


@attrs.frozen(kw_only=True)
class BridgeConfig:
    """The network of the pods on this node."""

    bridge: str = attrs.field(default="nanocloud0", validator=_interface)
    subnet: str = attrs.field(default="10.118.0.0/16", validator=_subnet)
    """Between the ranges that Kubernetes distributions, Docker, Podman and GCP hand out by default."""
    subnet6: str = attrs.field(default="fd6e:616e:6f63::/64", validator=_subnet6)
    """A unique local prefix; "" turns IPv6 off. It is off, too, where the host has IPv6 disabled."""
    table: str = attrs.field(default="nanocloud", validator=_table)
    """The nftables table, of family inet."""
    mtu: int | None = attrs.field(default=None, validator=_mtu)
    """None: that of the interface of the default route."""
    upstream: tuple[str, ...] = attrs.field(default=(), validator=_upstream)
    """Resolvers for names that are not ours; empty: those of the node's /etc/resolv.conf."""

    def __attrs_post_init__(self) -> None:
        six = self.network6
        if six is not None and six.num_addresses < self.network.num_addresses:
            raise ValueError(f"subnet6 {six} has fewer addresses than subnet {self.network}")

    @property
    def network(self) -> IPv4Network:
        return IPv4Network(self.subnet)

    @property
    def network6(self) -> IPv6Network | None:
        return IPv6Network(self.subnet6) if self.subnet6 else None

    @property
    def gateway(self) -> IPv4Address:
        """The bridge's own address, which is also the name server's: the first of the subnet."""
        return self.network[1]
