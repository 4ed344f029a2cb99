"""The network contract: a sandbox gets a network namespace, addresses, host ports, and names that resolve.

Networks outlive the server: after a crash ``list`` gives back what is attached. Addresses are sticky: an ``owner``
gets the same address again while nobody else needs it, so names keep their meaning over restarts.

Source: CNI specification 1.0.0 for the vocabulary.
"""

from __future__ import annotations

import abc
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Literal, NewType

import attrs

from nanocloud.providers.base import Provider

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

SandboxId = NewType("SandboxId", str)
"""``[a-z0-9][a-z0-9.-]{0,62}``; one pod sandbox."""

IPAddress = IPv4Address | IPv6Address


@attrs.frozen(kw_only=True)
class PortMapping:
    """Traffic to ``host_ip:host_port`` of the node goes to ``container_port`` of the sandbox.

    A number of one protocol is free while the other one's is held.
    """

    host_port: int
    container_port: int
    protocol: Literal["tcp", "udp"] = "tcp"
    host_ip: IPv4Address | IPv6Address | None = None
    """None: every address of the node, loopback too."""


@attrs.frozen(kw_only=True)
class SandboxNetworkSpec:
    sandbox: SandboxId
    owner: str
    """``<namespace>/<pod>``; whose address it is."""
    ports: tuple[PortMapping, ...] = ()


@attrs.frozen(kw_only=True)
class SandboxNetwork:
    """What ``attach`` made."""

    sandbox: SandboxId
    owner: str
    namespace_path: Path
    """Bind mount of the network namespace; valid until ``detach``."""
    addresses: tuple[IPAddress, ...]
    nameservers: tuple[IPAddress, ...]
    """What the sandbox's ``/etc/resolv.conf`` must name so that ``set_names`` takes effect."""
    ports: tuple[PortMapping, ...]


class NetworkProvider(Provider):
    """Connects pod sandboxes. While it is open, its name server answers and foreign changes are mended."""

    @abc.abstractmethod
    async def attach(self, spec: SandboxNetworkSpec) -> SandboxNetwork:
        """Make the sandbox's network namespace and connect it; all or nothing. The same spec again returns the same. No
        address is given to two sandboxes.

        Raises:
            InvalidError: an id, owner or port that cannot be.
            AlreadyExistsError: the sandbox is attached with another owner or other ports.
            PortInUseError: a host port is held by another sandbox or by a program of the host; names port and holder.
            ProviderError: the owner has another sandbox, no address is left, or the host refused; the message names
                the step.
        """

    @abc.abstractmethod
    async def detach(self, sandbox: SandboxId) -> None:
        """Remove the namespace, the link, the rules; keep the owner's address reserved. Unknown ids are no error."""

    @abc.abstractmethod
    async def release(self, owner: str) -> None:
        """Forget the address reserved for ``owner`` (its pod is gone for good). Unknown owners are no error.

        Raises:
            ProviderError: a sandbox of the owner is attached; names it.
        """

    @abc.abstractmethod
    async def list(self) -> Sequence[SandboxNetwork]:
        """Every attached sandbox, with its namespace verified to exist."""

    @abc.abstractmethod
    async def set_names(self, names: Mapping[str, Sequence[IPAddress]]) -> None:
        """Replace the names that sandboxes resolve. Names are lower case without a final dot.

        Other names are asked of the node's own resolvers. A known name without an address of the asked family
        answers NODATA, an unknown name below ``svc`` or ``nanocloud.local`` answers NXDOMAIN.
        """
