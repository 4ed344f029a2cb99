"""Fake networks with one bug each that breaks sentences of their contract; see ``test_mutants.py``."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio
from subjects import CANCELLED, NetworkSubject

from nanocloud.errors import ProviderError
from nanocloud.testkit import FakeNetwork

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from ipaddress import IPv4Address

    from nanocloud.providers.network import PortMapping, SandboxId, SandboxNetwork, SandboxNetworkSpec


class GivesOneAddressTwice(FakeNetwork):
    """To the fourth sandbox that of the first."""

    def _address_for(self, owner: str) -> IPv4Address:
        if len(self._attached) < 3:
            return super()._address_for(owner)
        return self._reserved[next(iter(self._attached.values())).owner]


class TestGivesOneAddressTwice(NetworkSubject):
    fake = GivesOneAddressTwice
    breaks = ("No address is given to two sandboxes.",)


class ForgetsAnAddress(FakeNetwork):
    """Detaching frees the owner's address."""

    async def detach(self, sandbox: SandboxId) -> None:
        network = self._attached.get(sandbox)
        await super().detach(sandbox)
        if network is not None:
            self._reserved.pop(network.owner, None)


class TestForgetsAnAddress(NetworkSubject):
    fake = ForgetsAnAddress
    breaks = (
        "Remove the namespace, the link, the rules; keep the owner's address reserved.",
        "Addresses are sticky: an ``owner`` gets the same address again while nobody else needs it, so names keep "
        "their meaning over restarts.",
    )


class KeepsThePortOfACancelledAttach(FakeNetwork):
    async def attach(self, spec: SandboxNetworkSpec) -> SandboxNetwork:
        if spec.sandbox in self._attached:
            return await super().attach(spec)
        for port in spec.ports:
            self._check_free(port, spec.sandbox)
        taken = {(port.host_port, port.protocol): spec.sandbox for port in spec.ports}
        self.host_programs.update(taken)
        await trio.lowlevel.checkpoint()
        for port in taken:
            del self.host_programs[port]
        return await super().attach(spec)


class TestKeepsThePortOfACancelledAttach(NetworkSubject):
    fake = KeepsThePortOfACancelledAttach
    breaks = (CANCELLED,)


class LooksForPortsTooEarly(FakeNetwork):
    """Looks whether a host port is free, does its work, and takes it."""

    async def attach(self, spec: SandboxNetworkSpec) -> SandboxNetwork:
        for port in spec.ports if spec.sandbox not in self._attached else ():
            super()._check_free(port, spec.sandbox)
        return await super().attach(spec)

    def _check_free(self, port: PortMapping, sandbox: SandboxId) -> None:
        pass


class TestLooksForPortsTooEarly(NetworkSubject):
    fake = LooksForPortsTooEarly
    breaks = (
        "PortInUseError: a host port is held by another sandbox or by a program of the host; names port and holder.",
    )


class KeepsPortsByAddress(FakeNetwork):
    """Two host addresses never meet, whatever they are."""

    def _check_free(self, port: PortMapping, sandbox: SandboxId) -> None:
        held = {other.host_ip for network in self._attached.values() for other in network.ports}
        if port.host_ip in held or not held:
            super()._check_free(port, sandbox)


class TestKeepsPortsByAddress(NetworkSubject):
    fake = KeepsPortsByAddress
    breaks = ("None: every address of the node, loopback too.",)


class RemembersAddressesInMemory(FakeNetwork):
    """Only what is attached is in its records."""

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        owners = {network.owner for network in self._attached.values()}
        for owner in set(self._reserved) - owners:
            del self._reserved[owner]
        yield


class TestRemembersAddressesInMemory(NetworkSubject):
    fake = RemembersAddressesInMemory
    breaks = (
        "Addresses are sticky: an ``owner`` gets the same address again while nobody else needs it, so names keep "
        "their meaning over restarts.",
    )


class ForgetsBeforeItDetaches(FakeNetwork):
    """The record goes first; a detach that is cancelled then finds nothing to be done any more."""

    async def detach(self, sandbox: SandboxId) -> None:
        network = self._attached.get(sandbox)
        await super().detach(sandbox)
        held = {(port.host_port, port.protocol): sandbox for port in network.ports} if network else {}
        self.host_programs.update(held)
        await trio.lowlevel.checkpoint()
        for port in held:
            del self.host_programs[port]


class TestForgetsBeforeItDetaches(NetworkSubject):
    fake = ForgetsBeforeItDetaches
    breaks = (CANCELLED,)


class NamesLinksByTheirBeginning(FakeNetwork):
    """As if 15 characters, all that a network device may have, told every sandbox from every other."""

    async def attach(self, spec: SandboxNetworkSpec) -> SandboxNetwork:
        if any(len(other) > 15 and other[:15] == spec.sandbox[:15] != other for other in self._attached):
            raise ProviderError(f"sandbox {spec.sandbox}: its device exists")
        return await super().attach(spec)


class TestNamesLinksByTheirBeginning(NetworkSubject):
    fake = NamesLinksByTheirBeginning
    breaks = ("``[a-z0-9][a-z0-9.-]{0,62}``; one pod sandbox.",)
