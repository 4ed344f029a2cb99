"""The bridge network as the node's provider: who is attached, one change a sandbox at a time, names, mending."""

from __future__ import annotations

import logging
from collections import Counter
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import trio

from nanocloud.errors import AlreadyExistsError, NanocloudError, ProviderError
from nanocloud.providers.base import Removable
from nanocloud.providers.network import NetworkProvider, SandboxId, SandboxNetwork
from nanocloud_cni_bridge import attachment as records
from nanocloud_cni_bridge import netns, watch
from nanocloud_cni_bridge.addresses import AddressPool
from nanocloud_cni_bridge.attachment import Attachment
from nanocloud_cni_bridge.dns_server import DnsServer
from nanocloud_cni_bridge.dns_upstream import Resolvers, Upstream
from nanocloud_cni_bridge.dns_zone import Zone
from nanocloud_cni_bridge.host import Folders, Host, purge
from nanocloud_cni_bridge.hostports import PortTable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from ipaddress import IPv6Address
    from pathlib import Path

    from nanocloud.providers.network import IPAddress, SandboxNetworkSpec
    from nanocloud_cni_bridge.config import BridgeConfig

log = logging.getLogger(__name__)

T = TypeVar("T")

_THREADS = 8  # the kernel makes and removes links one after the other anyway
_MEND_PAUSE_SECONDS = 0.25
_MEND_PAUSE_LIMIT_SECONDS = 30.0


class BridgeNetwork(NetworkProvider, Removable):
    """A Linux bridge with a veth pair a sandbox, nftables for host ports, and a name server."""

    def __init__(self, config: BridgeConfig, *, state_dir: Path, run_dir: Path) -> None:
        self._config, self._folders = config, Folders(state_dir, run_dir)
        self._limiter: trio.CapacityLimiter
        self._host: Host
        self._pool: AddressPool
        self._ports: PortTable
        self._server: DnsServer
        self._attached: dict[SandboxId, Attachment] = {}
        self._links: set[str] = set()
        """Of those that are attached."""
        self._owners: dict[str, SandboxId] = {}
        """Who uses whose address: attached, being attached or being detached."""
        self._locks: dict[SandboxId, trio.Lock] = {}
        self._lock_users: Counter[SandboxId] = Counter()

    @property
    def name(self) -> str:
        return "cni-bridge"

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        self._limiter = trio.CapacityLimiter(_THREADS)
        self._host, attached = await self._in_thread(Host.open, self._config, self._folders)
        self._adopt(attached)
        settings = self._host.settings
        upstream = Upstream(Resolvers(self._config.upstream, settings.gateways))
        self._server = DnsServer(Zone({}, settings.networks, ready=False), upstream, settings.networks)
        with self._server.bind(settings.gateways):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._server.serve)
                nursery.start_soon(self._mend_changes)
                try:
                    yield
                finally:
                    nursery.cancel_scope.cancel()

    async def attach(self, spec: SandboxNetworkSpec) -> SandboxNetwork:
        records.check_spec(spec)
        async with self._alone(spec.sandbox):
            known = self._attached.get(spec.sandbox)
            if known is not None:
                if known.spec != spec:
                    raise AlreadyExistsError(
                        f"sandbox {spec.sandbox} is attached with another specification; detach it first"
                    )
                if netns.is_namespace(self._host.namespace(spec.sandbox)):
                    await self._in_thread(self._host.mend, known)
                    return self._result(known)
                await self._remove(known)  # its namespace was taken away: begin anew
            return self._result(await self._attach(spec))

    async def detach(self, sandbox: SandboxId) -> None:
        records.check_sandbox(sandbox)
        async with self._alone(sandbox):
            known = self._attached.get(sandbox)
            if known is not None:
                await self._remove(known)
            else:
                await self._in_thread(self._host.sweep, sandbox)

    async def release(self, owner: str) -> None:
        records.check_owner(owner)
        if owner in self._owners:
            raise ProviderError(f"address of {owner} is in use by sandbox {self._owners[owner]}; detach it first")
        self._pool.release(owner)
        await self._in_thread(self._pool.forget, owner)

    async def list(self) -> Sequence[SandboxNetwork]:
        await trio.lowlevel.checkpoint()
        return [self._result(a) for a in self._attached.values() if netns.is_namespace(self._host.namespace(a.sandbox))]

    async def set_names(self, names: Mapping[str, Sequence[IPAddress]]) -> None:
        await trio.lowlevel.checkpoint()
        self._server.zone.replace(names)

    async def purge(self) -> None:
        await trio.to_thread.run_sync(purge, self._config, self._folders)

    def _adopt(self, attached: Sequence[Attachment]) -> None:
        """Take over what a former run left; attached sandboxes win over reservations on disk."""
        settings = self._host.settings
        self._pool = AddressPool(settings.network, self._folders.reservations)
        self._ports = PortTable(dual=settings.dual)
        self._attached = {a.sandbox: a for a in attached}
        self._links = {a.link for a in attached}
        self._owners = {a.owner: a.sandbox for a in attached}
        for a in attached:
            try:
                self._pool.adopt(a.owner, a.address)
                self._ports.take(a)
            except ProviderError as exc:  # IPv6 was turned off meanwhile, say: it lives on as well as it can
                log.warning("%s", exc)
        self._pool.open()

    async def _attach(self, spec: SandboxNetworkSpec) -> Attachment:
        user = self._owners.get(spec.owner)
        if user is not None:
            raise ProviderError(
                f"sandbox {spec.sandbox}: {spec.owner} is attached as sandbox {user}; detach that first"
            )
        if self._attached_link(records.link_name(spec.sandbox)):
            raise ProviderError(f"sandbox {spec.sandbox}: another sandbox's link has the same name; take another id")
        index, loser = self._pool.reserve(spec.owner, attached=self._owners)
        attachment = self._planned(spec, index)
        self._ports.take(attachment)
        self._owners[spec.owner] = spec.sandbox

        def reserve() -> None:
            if loser is not None:
                self._pool.forget(loser)
            self._pool.remember(spec.owner, attachment.address)

        try:
            await self._in_thread(self._host.set_up, attachment, reserve)
        except BaseException:
            self._forget(attachment)
            raise
        self._attached[spec.sandbox] = attachment
        self._links.add(attachment.link)
        return attachment

    async def _remove(self, attachment: Attachment) -> None:
        # From here on it is not attached, even if the removal fails: detaching again sweeps by name.
        self._attached.pop(attachment.sandbox, None)
        self._links.discard(attachment.link)
        try:
            # The thread is not cancelled, but the wait for a free one would be.
            with trio.CancelScope(shield=True):
                await self._in_thread(self._host.tear_down, attachment)
        finally:
            self._forget(attachment)

    def _forget(self, attachment: Attachment) -> None:
        self._ports.drop(attachment)
        self._owners.pop(attachment.owner, None)

    def _planned(self, spec: SandboxNetworkSpec, index: int) -> Attachment:
        address6: IPv6Address | None = None
        if self._host.settings.network6 is not None:
            address6 = self._host.settings.network6[index]
        return Attachment(
            sandbox=spec.sandbox,
            owner=spec.owner,
            address=self._pool.address(index),
            address6=address6,
            ports=tuple(spec.ports),
        )

    def _result(self, attachment: Attachment) -> SandboxNetwork:
        return SandboxNetwork(
            sandbox=attachment.sandbox,
            owner=attachment.owner,
            namespace_path=self._host.namespace(attachment.sandbox),
            addresses=attachment.addresses,
            nameservers=self._host.settings.gateways,
            ports=attachment.ports,
        )

    async def _in_thread(self, work: Callable[..., T], *args: object) -> T:
        # Not abandoned on cancellation: set_up and tear_down always finish what they began.
        return await trio.to_thread.run_sync(partial(work, *args), limiter=self._limiter)

    @asynccontextmanager
    async def _alone(self, sandbox: SandboxId) -> AsyncIterator[None]:
        """One attach or detach a sandbox at a time; different sandboxes side by side."""
        lock = self._locks.setdefault(sandbox, trio.Lock())
        self._lock_users[sandbox] += 1
        try:
            async with lock:
                yield
        finally:
            self._lock_users[sandbox] -= 1
            if not self._lock_users[sandbox]:
                del self._locks[sandbox], self._lock_users[sandbox]

    async def _mend_changes(self) -> None:
        """Put right what others change while the network is open."""
        changed, changes = trio.open_memory_channel[None](1)

        def note() -> None:
            try:
                changed.send_nowait(None)
            except trio.WouldBlock:
                pass  # a look is due already

        def link_concerns(kind: int, body: bytes) -> bool:
            return watch.link_concerns(
                kind, body, bridge=self._config.bridge, index=self._host.bridge_index, links=self._attached_link
            )

        links, rules = watch.open_sockets()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch.watch, links, link_concerns, note)
            nursery.start_soon(watch.watch, rules, partial(watch.rules_concern, table=self._config.table), note)
            pause = _MEND_PAUSE_SECONDS
            async for _ in changes:
                try:
                    await self._mend()
                    pause = _MEND_PAUSE_SECONDS
                except NanocloudError as exc:
                    log.warning("the network was changed and could not be mended, trying again: %s", exc)
                    pause = min(pause * 2, _MEND_PAUSE_LIMIT_SECONDS)
                    note()
                # Against somebody who changes it back at once, all day.
                await trio.sleep(pause)

    def _attached_link(self, name: str) -> bool:
        return name in self._links

    async def _mend(self) -> None:
        await self._in_thread(self._host.ensure_bridge)
        for lost in await self._in_thread(self._host.lost_links, list(self._attached.values())):
            async with self._alone(lost.sandbox):
                if self._attached.get(lost.sandbox) is lost:
                    log.warning("sandbox %s had lost its link", lost.sandbox)
                    await self._in_thread(self._host.mend, lost)
        if await self._in_thread(self._host.rules.restore):
            log.warning("the packet rules of table inet %s had been changed", self._config.table)
