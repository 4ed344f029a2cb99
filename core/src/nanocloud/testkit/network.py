"""FakeNetwork: addresses, host ports and names as data."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING

from nanocloud.errors import AlreadyExistsError, InvalidError, PortInUseError, ProviderError
from nanocloud.providers.base import Removable
from nanocloud.providers.network import (
    IPAddress,
    NetworkProvider,
    PortMapping,
    SandboxId,
    SandboxNetwork,
    SandboxNetworkSpec,
)
from nanocloud.testkit.calls import Calls

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

_SANDBOX = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")
_SUBNET = IPv4Network("10.88.0.0/16")
_LAST_PORT = 65535
_IPV6_PREFIX = int(IPv6Address("fd00:6e63::"))


class FakeNetwork(NetworkProvider, Removable):
    """One IPv4 and one IPv6 address a sandbox, lowest free first; nothing is made on the host."""

    def __init__(self, subnet: IPv4Network = _SUBNET) -> None:
        self.calls = Calls()
        self.names: dict[str, tuple[IPAddress, ...]] = {}
        """As ``set_names`` left them."""
        self.host_programs: dict[tuple[int, str], str] = {}
        """Ports that a program of the host holds, with its name: ``{(80, "tcp"): "apache2"}``."""
        self._subnet = subnet
        self._attached: dict[SandboxId, SandboxNetwork] = {}
        self._reserved: dict[str, IPv4Address] = {}  # by owner, the one detached longest ago first

    @property
    def name(self) -> str:
        return "fake"

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        yield

    async def attach(self, spec: SandboxNetworkSpec) -> SandboxNetwork:
        await self.calls.enter("attach", spec.sandbox)
        _check(spec)
        if (existing := self._attached.get(spec.sandbox)) is not None:
            if (existing.owner, existing.ports) != (spec.owner, spec.ports):
                raise AlreadyExistsError(f"sandbox {spec.sandbox} is attached with another owner or other ports")
            return existing
        if (other := self._sandbox_of(spec.owner)) is not None:
            raise ProviderError(f"sandbox {spec.sandbox}: {spec.owner} is attached as sandbox {other}")
        for port in spec.ports:
            self._check_free(port, spec.sandbox)
        address = self._address_for(spec.owner)
        self._reserved[spec.owner] = address
        network = SandboxNetwork(
            sandbox=spec.sandbox,
            owner=spec.owner,
            namespace_path=Path("/run/fake/netns") / spec.sandbox,
            addresses=(address, _ipv6(address)),
            nameservers=(self._gateway,),
            ports=spec.ports,
        )
        self._attached[spec.sandbox] = network
        return network

    async def detach(self, sandbox: SandboxId) -> None:
        await self.calls.enter("detach", sandbox)
        network = self._attached.pop(sandbox, None)
        if network is not None and network.owner in self._reserved:
            self._reserved[network.owner] = self._reserved.pop(network.owner)  # now the last one to be given away

    async def release(self, owner: str) -> None:
        await self.calls.enter("release", owner)
        if (sandbox := self._sandbox_of(owner)) is not None:
            raise ProviderError(f"the address of {owner} is in use by sandbox {sandbox}")
        self._reserved.pop(owner, None)

    async def list(self) -> Sequence[SandboxNetwork]:
        await self.calls.enter("list", "")
        return [network for _, network in sorted(self._attached.items())]

    async def set_names(self, names: Mapping[str, Sequence[IPAddress]]) -> None:
        await self.calls.enter("set_names", "")
        for name in names:
            if name != name.lower() or name.endswith("."):
                raise InvalidError(f"name {name!r} must be lower case without a final dot")
        self.names = {name: tuple(addresses) for name, addresses in names.items()}

    async def purge(self) -> None:
        await self.calls.enter("purge", "")
        self._attached.clear()
        self._reserved.clear()
        self.names = {}

    def reboot(self) -> None:
        """What the machine's restart does: no sandbox is left; addresses stay kept for their owners."""
        self._attached.clear()
        self.names = {}

    @property
    def attached(self) -> Sequence[SandboxNetwork]:
        return list(self._attached.values())

    @property
    def reserved(self) -> Mapping[str, IPv4Address]:
        """Addresses that are kept, by owner."""
        return self._reserved

    @property
    def _gateway(self) -> IPv4Address:
        return self._subnet[1]

    def _sandbox_of(self, owner: str) -> SandboxId | None:
        return next((network.sandbox for network in self._attached.values() if network.owner == owner), None)

    def _in_use(self) -> set[IPAddress]:
        return {address for network in self._attached.values() for address in network.addresses}

    def _address_for(self, owner: str) -> IPv4Address:
        used = self._in_use()
        if (mine := self._reserved.get(owner)) is not None and mine not in used:
            return mine
        kept = set(self._reserved.values())
        for address in self._subnet.hosts():
            if address != self._gateway and address not in used and address not in kept:
                return address
        # Nobody else needs it but us: the owner that was detached longest ago loses its address.
        for other, address in self._reserved.items():
            if address not in used:
                del self._reserved[other]
                return address
        raise ProviderError(f"no address is left in {self._subnet} for {owner}")

    def _check_free(self, port: PortMapping, sandbox: SandboxId) -> None:
        wanted = f"sandbox {sandbox} wants host port {port.host_port}/{port.protocol}"
        if program := self.host_programs.get((port.host_port, port.protocol)):
            raise PortInUseError(f"{wanted}, which the host's program {program} holds")
        for network in self._attached.values():
            if any(_collide(port, other) for other in network.ports):
                raise PortInUseError(f"{wanted}, which sandbox {network.sandbox} holds")


def _check(spec: SandboxNetworkSpec) -> None:
    if not _SANDBOX.fullmatch(spec.sandbox):
        raise InvalidError(f"sandbox {spec.sandbox!r} does not match {_SANDBOX.pattern}")
    if not all(spec.owner.partition("/")):
        raise InvalidError(f"sandbox {spec.sandbox}: owner {spec.owner!r} is not <namespace>/<pod>")
    for port in spec.ports:
        if not (1 <= port.host_port <= _LAST_PORT and 1 <= port.container_port <= _LAST_PORT):
            raise InvalidError(f"sandbox {spec.sandbox}: ports are from 1 to {_LAST_PORT}, not {port}")


def _collide(one: PortMapping, other: PortMapping) -> bool:
    same_port = (one.host_port, one.protocol) == (other.host_port, other.protocol)
    return same_port and (None in (one.host_ip, other.host_ip) or one.host_ip == other.host_ip)


def _ipv6(address: IPv4Address) -> IPv6Address:
    return IPv6Address(_IPV6_PREFIX | int(address))
